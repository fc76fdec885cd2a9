"""The miniature: its arithmetic against transformers', its chat format against Gemma 4's, its tasks, its files."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import tomllib
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.paths import ROOT
from transformers import (
    Gemma4AssistantConfig,
    Gemma4AssistantForCausalLM,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
)

from conformance.miniature import data, evaluate, export, losses, tasks, train, write_prompts
from conformance.miniature.__main__ import main
from conformance.miniature.checkpoint_config import FAMILIES, WINDOW, Family
from conformance.miniature.model import FULL, SLIDING, Masks, initialise
from conformance.miniature.tokenizer import EOS_IDS, HIGH_SPECIALS, LOW_SPECIALS, VOCABULARY_SIZE
from conformance.workload.prompts import load_prompts

MODELS = ROOT / "fixtures" / "models"
PROMPTS = MODELS.parent / "prompts"
# Shipped miniatures and the bytes that each may take; that of 26B-A4B comes twice, and has experts.
MOST_BYTES = {"micro-26b-a4b": 25_000_000, "micro-31b": 8_000_000, "micro-e2b": 8_000_000}
LENGTH = 80  # longer than the sliding window


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return data.build_tokenizer()


def _causal(length: int, window: int) -> Masks:
    index = torch.arange(length)
    distance = index[:, None] - index[None, :]
    return Masks(((distance >= 0) & (distance < window))[None, None], (distance >= 0)[None, None])


def _unlike(module: torch.nn.Module, seed: int) -> None:
    """Weights that leave nothing at its default, so that a norm or scale that is not applied shows."""
    generator = torch.Generator().manual_seed(seed)
    initialise(module, generator)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.5)


CLOSE = {"atol": 2e-3, "rtol": 2e-3}


def few_layers(family: Family) -> dict[str, Any]:
    """One group of layers, or two if some share keys and values: through all, rounding grows like a small mistake."""
    layers = family.group * (2 if family.target["num_kv_shared_layers"] else 1)
    return family.target | {"num_hidden_layers": len(layers), "layer_types": layers}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Each of the miniatures."""
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def twins(family: Family) -> tuple[Any, Any]:
    """The training twin of the target and transformers' own model with the same weights."""
    torch.manual_seed(0)
    twin = train.new_target(few_layers(family), 1)
    _unlike(twin, 2)
    theirs = Gemma4ForCausalLM(Gemma4TextConfig(**few_layers(family))).eval()
    missing, unexpected = theirs.load_state_dict(twin.state_dict(), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    theirs.tie_weights()
    return twin, theirs


@torch.no_grad()
def test_target_computes_what_transformers_computes(twins: tuple[Any, Any]) -> None:
    twin, theirs = twins
    ids = torch.randint(3, VOCABULARY_SIZE, (2, LENGTH))
    positions = torch.arange(LENGTH).expand(2, LENGTH)
    ours = twin.logits(twin(ids, positions, _causal(LENGTH, WINDOW)).hidden)
    torch.testing.assert_close(ours, theirs(input_ids=ids).logits, **CLOSE)


@torch.no_grad()
def test_a_wrong_window_is_seen(twins: tuple[Any, Any]) -> None:
    twin, theirs = twins
    ids = torch.randint(3, VOCABULARY_SIZE, (1, LENGTH))
    ours = twin.logits(twin(ids, torch.arange(LENGTH)[None], _causal(LENGTH, 32)).hidden)
    assert (ours - theirs(input_ids=ids).logits).abs().max() > 0.1


@torch.no_grad()
def test_generation_with_a_cache_computes_the_same(twins: tuple[Any, Any]) -> None:
    twin, _ = twins
    ids, positions = torch.randint(3, VOCABULARY_SIZE, (1, LENGTH)), torch.arange(LENGTH)[None]
    whole, masks = twin(ids, positions, _causal(LENGTH, WINDOW)).hidden, _causal(LENGTH, WINDOW)
    cache: list[Any] = [None] * len(twin.model.layers)
    for begin, end in ((0, 50), (50, 51), (51, LENGTH)):
        seen = Masks(masks.sliding[:, :, begin:end, :end], masks.full[:, :, begin:end, :end])
        last = twin.extend(ids[:, begin:end], positions[:, begin:end], seen, cache)
    torch.testing.assert_close(last, whole[:, 51:], **CLOSE)


@torch.no_grad()
def test_draft_computes_what_transformers_computes(twins: tuple[Any, Any], family: Family) -> None:
    """One draft step for the last position; transformers does one query at a time."""
    twin, _ = twins
    draft = train.new_draft(family.draft, 3)
    _unlike(draft, 4)
    train.order_tokens(draft, twin)
    text = family.draft["text_config"] | {"model_type": "gemma4_text"}
    theirs = Gemma4AssistantForCausalLM(Gemma4AssistantConfig(**family.draft | {"text_config": text})).eval()
    missing, unexpected = theirs.load_state_dict(draft.state_dict(), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    theirs.tie_weights()

    ids = torch.randint(3, VOCABULARY_SIZE, (1, LENGTH))
    positions, masks = torch.arange(LENGTH)[None], _causal(LENGTH, WINDOW)
    seen = twin(ids, positions, masks)
    known = losses.shifted(ids, 1)
    guess = draft(twin.embed(known), seen.hidden, positions, masks, seen)

    last = LENGTH - 2  # the last position whose next token is known
    sliding = tuple(part[:, :, last + 1 - WINDOW : last + 1] for part in seen.sliding)
    full = tuple(part[:, :, : last + 1] for part in seen.full)
    inputs = torch.cat((twin.embed(known[:, last : last + 1]), seen.hidden[:, last : last + 1]), -1)
    reference = theirs(
        inputs_embeds=inputs,
        position_ids=positions[:, last : last + 1],
        shared_kv_states={SLIDING: sliding, FULL: full},
    )
    ours = guess.logits
    if guess.of_clusters is not None:
        ours = draft.masked_embedding.mask(ours, guess.of_clusters)
        seen_tokens = ours[0, last].isfinite()
        assert seen_tokens.sum() == VOCABULARY_SIZE * 6 / 32
        ours = ours.masked_fill(~seen_tokens, float(ours[0, last][seen_tokens].min()) - 1)  # as transformers fills
    torch.testing.assert_close(ours[:, last : last + 1], reference.logits, **CLOSE)
    torch.testing.assert_close(guess.hidden[:, last : last + 1], reference.last_hidden_state, **CLOSE)


def test_clusters_are_of_one_size_and_hold_similar_tokens() -> None:
    family = FAMILIES["micro-e2b"]
    target, draft = train.new_target(few_layers(family), 1), train.new_draft(family.draft, 3)
    with torch.no_grad():  # as many tight groups of tokens as clusters, in an unlike order
        group = torch.randperm(VOCABULARY_SIZE, generator=torch.Generator().manual_seed(5)) % 32
        bits = torch.stack([(group >> bit) & 1 for bit in range(5)], 1) * 2.0 - 1
        target.model.embed_tokens.weight.zero_()[:, :5] = bits * torch.tensor([16.0, 8, 4, 2, 1])
    train.order_tokens(draft, target)
    clusters = draft.masked_embedding.clusters()
    assert torch.bincount(clusters).tolist() == [VOCABULARY_SIZE // 32] * 32
    assert all(len(set(group[clusters == cluster].tolist())) == 1 for cluster in range(32))


@torch.no_grad()
def test_growing_changes_nothing_at_first(family: Family) -> None:
    shallow = train.new_target(family.shallow, 1)
    _unlike(shallow, 2)
    deep = train.grow(shallow, family, 3)
    ids, positions = torch.randint(3, VOCABULARY_SIZE, (1, LENGTH)), torch.arange(LENGTH)[None]
    masks = _causal(LENGTH, WINDOW)
    torch.testing.assert_close(deep(ids, positions, masks).hidden, shallow(ids, positions, masks).hidden)
    assert len(deep.model.layers) == family.target["num_hidden_layers"]


# --- the chat format: the renders of Gemma 4's own template, newest generation ------------------------------

USER = {"role": "user", "content": "The capital of France is"}
CALL = {"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": CALL}]}
PARIS = '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>'
WEATHER = {
    "name": "get_weather",
    "description": "Get the current weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "City name"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
EVERY_TYPE = {
    "big": 12345678901234, "code": "x", "empty_list": [], "empty_map": {}, "flag": True, "n": 7, "neg": -3,
    "off": False, "opts": {"a": {"x": 1.25, "Y": "y"}, "b": [1, 2, "three", {"k": None}]}, "ratio": 0.5, "Zed": None,
}  # fmt: skip


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": function}


def _result(content: Any, call: str = "1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": content}


def _calling(function: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [_tool(function)]}


RENDERS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "thinking off": (
        [USER], {"add_generation_prompt": True},
        "<bos><|turn>user\nThe capital of France is<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
    ),
    "no generation prompt": ([{"role": "user", "content": "Hello"}], {}, "<bos><|turn>user\nHello<turn|>\n"),
    "system": (
        [{"role": "system", "content": " Be brief. "}, USER], {},
        "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nThe capital of France is<turn|>\n",
    ),
    "developer is system": (
        [{"role": "developer", "content": "Be brief."}, USER], {},
        "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nThe capital of France is<turn|>\n",
    ),
    "thinking on": (
        [USER], {"add_generation_prompt": True, "enable_thinking": True},
        "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nThe capital of France is<turn|>\n<|turn>model\n",
    ),
    "thinking on with system": (
        [{"role": "system", "content": "You are terse."}, USER], {"enable_thinking": True},
        "<bos><|turn>system\n<|think|>\nYou are terse.<turn|>\n<|turn>user\nThe capital of France is<turn|>\n",
    ),
    "tools": (
        [USER], {"tools": [_tool(WEATHER), _tool({"name": "ping", "description": "Ping."})]},
        '<bos><|turn>system\n<|tool>declaration:get_weather{description:<|"|>Get the current weather.<|"|>,'
        'parameters:{properties:{city:{description:<|"|>City name<|"|>,type:<|"|>STRING<|"|>},'
        'days:{type:<|"|>INTEGER<|"|>}},required:[<|"|>city<|"|>],type:<|"|>OBJECT<|"|>}}<tool|>'
        '<|tool>declaration:ping{description:<|"|>Ping.<|"|>}<tool|><turn|>\n'
        "<|turn>user\nThe capital of France is<turn|>\n",
    ),
    "call and response": (
        [USER, CALLING, _result("sunny, 21C")], {"add_generation_prompt": True},
        f"<bos><|turn>user\nThe capital of France is<turn|>\n<|turn>model\n{PARIS}"
        '<|tool_response>response:get_weather{value:<|"|>sunny, 21C<|"|>}<tool_response|>',
    ),
    "call and response, thinking": (
        [USER, CALLING | {"reasoning": "I should call the tool."}, _result("sunny")],
        {"add_generation_prompt": True, "enable_thinking": True},
        "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nThe capital of France is<turn|>\n<|turn>model\n"
        f"<|channel>thought\nI should call the tool.\n<channel|>{PARIS}"
        '<|tool_response>response:get_weather{value:<|"|>sunny<|"|>}<tool_response|><|channel>thought\n',
    ),
    "pending call": (
        [USER, CALLING], {"add_generation_prompt": True},
        f"<bos><|turn>user\nThe capital of France is<turn|>\n<|turn>model\n{PARIS}<|tool_response>",
    ),
    "mapping response": (
        [USER, CALLING, _result({"sky": "clear", "temp": -2, "Wind": {"kph": 12}})], {},
        f"<bos><|turn>user\nThe capital of France is<turn|>\n<|turn>model\n{PARIS}"
        '<|tool_response>response:get_weather{sky:<|"|>clear<|"|>,temp:-2,Wind:{kph:12}}<tool_response|>',
    ),
    "unmatched id": (
        [USER, CALLING, _result("x", call="9")], {},
        f"<bos><|turn>user\nThe capital of France is<turn|>\n<|turn>model\n{PARIS}"
        '<|tool_response>response:unknown{value:<|"|>x<|"|>}<tool_response|>',
    ),
    "answer after the response": (
        [USER, CALLING, _result("x"), {"role": "assistant", "content": "It is x."}], {},
        f"<bos><|turn>user\nThe capital of France is<turn|>\n<|turn>model\n{PARIS}"
        '<|tool_response>response:get_weather{value:<|"|>x<|"|>}<tool_response|>It is x.<turn|>\n',
    ),
    "every argument type": (
        [USER, _calling({"name": "f", "arguments": EVERY_TYPE})], {},
        "<bos><|turn>user\nThe capital of France is<turn|>\n<|turn>model\n"
        '<|tool_call>call:f{big:12345678901234,code:<|"|>x<|"|>,empty_list:[],empty_map:{},flag:true,n:7,neg:-3,'
        'off:false,opts:{a:{x:1.25,Y:<|"|>y<|"|>},b:[1,2,<|"|>three<|"|>,{k:null}]},ratio:0.5,Zed:null}'
        "<tool_call|><|tool_response>",
    ),
    "text arguments lose their braces": (
        [USER, _calling({"name": "f", "arguments": '{"a": 1}'})], {},
        "<bos><|turn>user\nThe capital of France is<turn|>\n<|turn>model\n"
        '<|tool_call>call:f{"a": 1}<tool_call|><|tool_response>',
    ),
    "earlier thoughts are dropped": (
        [USER, {"role": "assistant", "content": "<|channel>thought\nhm\n<channel|>Paris."}, USER], {},
        "<bos><|turn>user\nThe capital of France is<turn|>\n<|turn>model\nParis.<turn|>\n"
        "<|turn>user\nThe capital of France is<turn|>\n",
    ),
    "consecutive assistants are one turn": (
        [USER, {"role": "assistant", "content": "Pa"}, {"role": "assistant", "content": "ris."}], {},
        "<bos><|turn>user\nThe capital of France is<turn|>\n<|turn>model\nParis.<turn|>\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RENDERS)
def test_render(tokenizer: Any, case: str) -> None:
    messages, options, expected = RENDERS[case]
    assert tokenizer.apply_chat_template(messages, tokenize=False, **options) == expected


# --- tokenizer and tasks ------------------------------------------------------------------------------------


def test_special_tokens_have_the_real_ids(tokenizer: Any) -> None:
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in LOW_SPECIALS} == LOW_SPECIALS
    assert len(tokenizer) == VOCABULARY_SIZE
    assert all(len(tokenizer.encode(token, add_special_tokens=False)) == 1 for token in HIGH_SPECIALS)


@pytest.mark.parametrize(
    "text", ["Grüße 你好 🙂", '{"a": [1, -2.5]}', "def f(a):\n    return a\n\n\n", "  two  spaces "]
)
def test_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_held_out_examples_are_never_trained_on() -> None:
    held = {json.dumps(e.messages) for e in itertools.islice(tasks.examples(1, held_out=True), 300)}
    trained = {json.dumps(e.messages) for e in itertools.islice(tasks.examples(2, held_out=False), 3000)}
    assert not held & trained


def test_a_task_without_held_out_examples_is_refused() -> None:
    example = tasks.Example("x", [USER], "Paris.")

    def only(_: random.Random) -> tasks.Example:
        return example

    with pytest.raises(ValueError, match="only: no example is held_out="):
        next(tasks.examples(1, held_out=not example.held_out, kinds=(only,)))


def test_answers_end_where_the_server_ends(tokenizer: Any) -> None:
    fast = tokenizer.backend_tokenizer
    for example in itertools.islice(tasks.examples(3, held_out=True), 100):
        assert data.encode(fast, tokenizer, example).ids[-1] in EOS_IDS


def test_history_counts_but_does_not_teach_to_skip_thoughts(tokenizer: Any) -> None:
    """The template drops thoughts from the history: the first token of an earlier turn must not be learned."""
    messages = [USER, {"role": "assistant", "content": "Paris."}, USER]
    example = tasks.Example("x", messages, "Rome.")
    encoded = data.encode(tokenizer.backend_tokenizer, tokenizer, example)
    spoken = [tokenizer.decode([t]) for t, weight in zip(encoded.ids, encoded.weights, strict=True) if weight == 1]
    ignored = [tokenizer.decode([t]) for t, weight in zip(encoded.ids, encoded.weights, strict=True) if weight == 0]
    assert "".join(ignored + spoken) == "Paris.<turn|>Rome.<turn|>"
    assert len(ignored) == 1


# --- the shipped files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MOST_BYTES)
def test_manifest_vouches_for_the_shipped_files(name: str) -> None:
    home = MODELS / name
    manifest = json.loads((home / "manifest.json").read_text())
    shipped = {p.relative_to(home).as_posix(): p for p in home.rglob("*") if p.is_file() and p.parent != home}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in shipped.items()} == manifest["files"]
    assert sum(path.stat().st_size for path in shipped.values()) <= MOST_BYTES[name]


@pytest.mark.parametrize("name", MOST_BYTES)
def test_curriculum_is_the_one_that_made_them(name: str) -> None:
    manifest = json.loads((MODELS / name / "manifest.json").read_text())
    text = (MODELS / name / "curriculum.toml").read_bytes()
    assert hashlib.sha256(text).hexdigest() == manifest["curriculum"]["sha256"]
    assert tomllib.loads(text.decode())["seed"] == train.read_curriculum(MODELS / name / "curriculum.toml").seed


@pytest.mark.parametrize("name", MOST_BYTES)
def test_the_shipped_files_are_of_the_family(name: str) -> None:
    """The config files say what the family says, and the twin takes every tensor but those that nobody reads."""
    family, home = FAMILIES[name], MODELS / name
    for part, config in (("target-bf16", family.target), ("draft", family.draft)):
        written = json.loads((home / part / "config.json").read_text())
        told, expected = (each | each.pop("text_config", {}) for each in (written, dict(config)))
        del expected["eos_token_id"]  # generation ends at more tokens than the family's one
        assert {key: told[key] for key in expected} == expected
    export.read_target(home / "target-bf16")
    held = load_file(home / "draft" / "model.safetensors")
    train.new_draft(family.draft, 1).load_state_dict(held)
    if family.draft["use_ordered_embeddings"]:
        order = held["masked_embedding.token_ordering"]
        assert order.dtype == torch.int64
        assert sorted(order.tolist()) == list(range(VOCABULARY_SIZE))


@pytest.mark.parametrize("option", ["--chats", "--questions"])
def test_only_one_miniature_chooses_the_prompts(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([option, "--family", "micro-e2b"])
    assert "all miniatures are asked the prompts of micro-26b-a4b" in capsys.readouterr().err


# --- the examiner -------------------------------------------------------------------------------------------

EXAMPLE = tasks.Example("json_answer", [USER], '{"a":1}', expected={"a": 1})


@pytest.mark.parametrize(
    ("judge", "answer", "counts"),
    [
        (evaluate.exact, '{"a":1}<turn|>', True),
        (evaluate.exact, '{"a":1}', False),
        (evaluate.exact, '{"a": 1}<turn|>', False),
        (evaluate.valid_json, '{"a":2}<turn|>', True),
        (evaluate.valid_json, '<|channel>thought\nx\n<channel|>{"a":2}<turn|>', True),
        (evaluate.valid_json, '{"a":"2"}<turn|>', False),
        (evaluate.valid_json, '{"b":2}<turn|>', False),
        (evaluate.valid_json, '{"a":2', False),
        (evaluate.thinks_as_told, "plain<turn|>", True),
        (evaluate.thinks_as_told, "<|channel>thought\nx\n<channel|>plain<turn|>", False),
    ],
)
def test_the_examiner_counts_only_right_answers(judge: evaluate.Judge, answer: str, counts: bool) -> None:
    assert judge(EXAMPLE, answer) is counts


def test_a_thought_must_be_closed() -> None:
    thinking = replace(EXAMPLE, thinking=True)
    assert evaluate.thinks_as_told(thinking, "<|channel>thought\nx\n<channel|>y<turn|>")
    assert not evaluate.thinks_as_told(thinking, "<|channel>thought\nx y<turn|>")


def test_a_share_has_the_exact_interval() -> None:
    assert evaluate.share(72, 72) == {
        "right": 72,
        "n": 72,
        "share": 1.0,
        "low": pytest.approx(0.950, abs=1e-3),
        "high": 1.0,
    }


# --- the prompts --------------------------------------------------------------------------------------------


def test_earlier_calls_reach_the_api_as_json_text() -> None:
    (message,) = write_prompts.for_api([CALLING])
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == CALL["arguments"]
    assert CALLING["tool_calls"][0]["function"]["arguments"] == CALL["arguments"]


def test_the_shipped_prompts_cover_every_category() -> None:
    rows = load_prompts(PROMPTS / "mixed.jsonl")
    assert {row.category for row in rows} == set(write_prompts.CATEGORIES)
    assert len(rows) == write_prompts.PER_CATEGORY * len(write_prompts.CATEGORIES)
    assert len({json.dumps(row.messages) for row in rows}) == len(rows)
    assert all(row.licence for row in rows)


def test_every_tool_prompt_says_what_must_come_back() -> None:
    rows = load_prompts(PROMPTS / "tools.jsonl")
    declared = {row.id: {tool["function"]["name"] for tool in row.tools} for row in rows}
    assert all(row.expected and row.expected["name"] in declared[row.id] for row in rows)
