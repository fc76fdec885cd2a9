"""Gemma 4's syntax of a call: what the template writes is read, and nothing else is."""

from __future__ import annotations

import pytest

from conformance.formats.gemma4_calls import QUOTE, Call, NotNative, read_call


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("call:f{}", {}),
        ("call:f{a:3,b:-0.5,c:1e+22,d:true,e:null}", {"a": 3, "b": -0.5, "c": 1e22, "d": True, "e": None}),
        ('call:f{a:~3~,b:~x, {y}: "z"~}', {"a": "3", "b": 'x, {y}: "z"'}),
        ("call:f{a:[1,[~x~],{}],b:{c d:{e:[]}}}", {"a": [1, ["x"], {}], "b": {"c d": {"e": []}}}),
        ("call:f{a:9007199254740993}", {"a": 2**53 + 1}),
    ],
)
def test_a_native_call_is_read(text: str, arguments: dict[str, object]) -> None:
    assert read_call(text.replace("~", QUOTE)) == Call("f", arguments)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "f{}",
            "call:{}",
            "call:f",
            "call:f{",
            "call:f{}}",
            "call:f(a:3)",
            "call: f{}",
            "call:f{a:3,}",
            "call:f{a:3 }",
        ),
        *("call:f{a:x}", "call:f{a:x~}", "call:f{a:~x}", "call:f{a:~~x~~}", "call:f{~a~:3}", "call:f{'a':3}"),
        *('call:f{"a":3}', "call:f{a=3}", "call:f{a:3,a:4}", "call:f{a: 3}", "call:f{a:03}", "call:f{a:[1,]}", ""),
    ],
)
def test_anything_else_is_not_native(text: str) -> None:
    with pytest.raises(NotNative):
        read_call(text.replace("~", QUOTE))
