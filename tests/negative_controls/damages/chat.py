"""What can go wrong with chats, the parser and wrong requests; each function damages the documents in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support import synthetic

Documents = synthetic.Documents
Row = tuple[str, Callable[[Documents], None], str]


def answer(d: Documents, group: str, interval: int = 0) -> dict[str, Any]:
    """The first answer with MTP of a group, streamed at this interval; 0 means not streamed."""
    rows = d[f"chat-{group}"]["answers"]
    found: dict[str, Any] = next(row for row in rows if (row["server"], row["interval"]) == ("mtp", interval))
    return found


def message(d: Documents, group: str) -> dict[str, Any]:
    """The one message of the first answer that is not streamed."""
    found: dict[str, Any] = answer(d, group)["messages"][0]
    return found


def arguments_of_a_streamed_call_dropped(d: Documents) -> None:
    answer(d, "call", 1)["messages"].pop()


def raw_token_in_content(d: Documents) -> None:
    message(d, "call")["content"] = "<|tool_call>call:get_weather{"


def content_beside_a_call(d: Documents) -> None:
    message(d, "call")["content"] = "Let me see."


def integers_as_strings(d: Documents) -> None:
    call = message(d, "nested")["calls"][0]
    call["arguments"] = call["arguments"].replace('"days": 0', '"days": "0"')


def second_call_dropped(d: Documents) -> None:
    answer(d, "two", 1)["messages"][-1]["calls"][0]["arguments"] = "{}"


def one_id_for_two_calls(d: Documents) -> None:
    for call in message(d, "two")["calls"]:
        call["id"] = "c0"


def thought_lost_before_a_call(d: Documents) -> None:
    message(d, "thought")["reasoning"] = None


def wrong_answer_after_a_result(d: Documents) -> None:
    message(d, "result")["content"] = "Tale."


def another_tool(d: Documents) -> None:
    message(d, "rounds")["calls"][0]["name"] = "get_time"


def brace_lost(d: Documents) -> None:
    call = message(d, "awkward")["calls"][0]
    call["arguments"] = call["arguments"].replace("{1}", "{1")


def called_in_spite_of_none(d: Documents) -> None:
    spoiled = answer(d, "none")
    spoiled["messages"][0]["calls"] = [{"index": 0, "id": "c0", "name": "get_weather", "arguments": "{}"}]
    spoiled["finish_reason"] = "tool_calls"


def cut_off_under_load(d: Documents) -> None:
    answer(d, "load")["finish_reason"] = "length"


def engine_error(d: Documents) -> None:
    spoiled = answer(d, "load")
    spoiled.update(messages=[], finish_reason=None, error={"status": 500, "message": "EngineCore died"})


def thought_in_content(d: Documents) -> None:
    message(d, "thinking").update(content="thought\nI think.Tale 0.", reasoning=None)


def thoughts_without_thinking(d: Documents) -> None:
    message(d, "omitted")["reasoning"] = "I think."


def end_of_a_streamed_thought_lost(d: Documents) -> None:
    answer(d, "thinking", 1)["messages"][0]["reasoning"] = "I"


def text_swallowed_at_the_boundary(d: Documents) -> None:
    for each in answer(d, "result-thinking", 1)["messages"]:
        each["content"] = None


def history_changes_the_answer(d: Documents) -> None:
    message(d, "remembering")["content"] = "I remember."


def schema_ignored(d: Documents) -> None:
    message(d, "strict-omitted")["content"] = '{"weeks": 0}'


def grammar_skipped_at_the_boundary(d: Documents) -> None:
    message(d, "strict-thinking")["content"] = '{"days": 0}{"days": 0}'


def called_in_place_of_json(d: Documents) -> None:
    spoiled = message(d, "strict-tools")
    spoiled.update(content=None, calls=[{"index": 0, "id": "c0", "name": "get_weather", "arguments": "{}"}])


def no_choice(d: Documents) -> None:
    message(d, "choice")["content"] = "Perhaps."


def another_choice(d: Documents) -> None:
    message(d, "regex")["content"] = "none"


def corrupt_json_at_once(d: Documents) -> None:
    message(d, "strict-24")["content"] = '{"days": '


def another_value_at_once(d: Documents) -> None:
    message(d, "strict-8")["content"] = '{"days": 9}'


def no_id_from_responses(d: Documents) -> None:
    message(d, "responses")["calls"][0]["id"] = ""


def other_arguments_from_anthropic(d: Documents) -> None:
    message(d, "anthropic")["calls"][0]["arguments"] = "{}"


def end_of_turn_in_a_completion(d: Documents) -> None:
    message(d, "completions")["content"] = "Tale 0.<turn|>"


def server_error_for_a_wrong_request(d: Documents) -> None:
    d["bad_requests"]["requests"][0].update(status=500, message="Internal Server Error")


def no_answer_to_a_wrong_request(d: Documents) -> None:
    d["bad_requests"]["requests"][1].update(status=None, message="ReadTimeout: timed out")


def server_error_for_a_broken_grammar(d: Documents) -> None:
    d["bad_requests"]["requests"][2].update(status=500, message="Internal server error")


def request_runs_on(d: Documents) -> None:
    d["bad_requests"]["departures"][1].update(running=3, kv_usage=0.25)


def answers_written_for_nobody(d: Documents) -> None:
    d["bad_requests"]["departures"][1].update(generated=4096)


def cache_kept(d: Documents) -> None:
    d["bad_requests"]["departures"][0].update(kv_usage=0.25)


def some_were_not_answered(d: Documents) -> None:
    d["bad_requests"]["departures"][1].update(delivered=5)


def another_answer_afterwards(d: Documents) -> None:
    d["bad_requests"]["after"] = "<pad>"


def misread(found: dict[str, Any]) -> dict[str, Any]:
    """A counterexample of a round trip."""
    given = [{"name": "set_values", "arguments": {"a": None}}]
    return {"schema": {}, "text": "<|tool_call>…", "way": "whole", "expected": given, "found": found}


def type_lost(d: Documents) -> None:
    found = {"reasoning": "", "content": "", "calls": [{"name": "set_values", "arguments": {"a": "null"}}]}
    for kind in d["parsers"]["round_trip"].values():
        kind["counterexample"] = misread(found)


def published_instance_lost(d: Documents) -> None:
    found = {"reasoning": "", "content": "", "calls": []}
    d["parsers"]["published"]["counterexample"] = misread(found) | {"id": "type-00"}


def cut_matters(d: Documents) -> None:
    whole, found = {"reasoning": "", "content": "a", "calls": []}, {"reasoning": "", "content": "", "calls": []}
    example = {"deltas": ["<|tool_call>", "call:"], "whole": whole, "found": found}
    d["parsers"]["chunking"]["two-0"]["counterexample"] = example


def parser_raises(d: Documents) -> None:
    d["parsers"]["any_text"]["counterexample"] = {"text": "<|tool_call>", "problem": "IndexError: list index"}


def a_kind_is_found(d: Documents) -> None:
    call = {"name": "pay", "arguments": {"amount": 3}}
    found = {"reasoning": "", "content": "", "calls": [{"name": "pay", "arguments": {"amount": "3"}}]}
    text = "<|tool_call>call:pay{amount:3}<tool_call|>"
    example = {"text": text, "given": {}, "expected": [call], "way": "whole", "found": found}
    for each in d["parsers"]["answers"].values():
        each["kinds"] = [{"kind": "value changed: $ref", "answers": 7, "example": example}]


KIND = 'value changed: $ref (in 7 of 200 answers): "<|tool_call>call:pay{amount:3}<tool_call|>" is parsed as '
DAMAGES: list[Row] = [
    *((f"PARSE-{number:02}", a_kind_is_found, KIND) for number in range(7, 13)),
    (
        "PARSE-01",
        type_lost,
        '{"a": "null"}}] (whole) where [{"name": "set_values", "arguments": {"a": null}}] is expected',
    ),
    ("PARSE-02", type_lost, "unions arguments: <|tool_call>…"),
    ("PARSE-03", type_lost, "untyped arguments: <|tool_call>…"),
    ("PARSE-04", cut_matters, "two-0: in deltas ['<|tool_call>', 'call:'] the result is {"),
    ("PARSE-05", parser_raises, "arbitrary text: IndexError: list index, for the text '<|tool_call>'"),
    ("PARSE-06", published_instance_lost, "published arguments: <|tool_call>… is parsed as [] (whole)"),
    ("TOOL-03", arguments_of_a_streamed_call_dropped, "the arguments of call 1 are not JSON: '' (right without MTP)"),
    ("TOOL-03", raw_token_in_content, "raw <|tool_call> in content: '<|tool_call>call:get_weather{'"),
    ("TOOL-03", content_beside_a_call, "content beside the calls: 'Let me see.' (right without MTP)"),
    ("TOOL-04", integers_as_strings, 'are not valid: $.days \'"0" is not of type "integer"\''),
    ("TOOL-05", second_call_dropped, "the arguments of call 2 are {} where"),
    ("TOOL-05", one_id_for_two_calls, "the ids of the calls are ['c0', 'c0'], but each call needs its own id"),
    ("TOOL-06", thought_lost_before_a_call, "no thoughts, though thinking is on"),
    ("TOOL-07", wrong_answer_after_a_result, "content is 'Tale.' where 'Tale 0.' was asked for"),
    ("TOOL-07", another_tool, "call 1 calls get_time where get_weather was asked for"),
    ("TOOL-08", brace_lost, "where {"),
    ("TOOL-09", called_in_spite_of_none, "1 calls where 0 were asked for"),
    ("TOOL-10", cut_off_under_load, "finish_reason is length where tool_calls is expected"),
    ("TOOL-10", engine_error, "HTTP 500: EngineCore died"),
    ("TOOL-11", second_call_dropped, "1 of 160 answers are wrong: "),
    ("REASON-01", thought_in_content, "a thought in content"),
    (
        "REASON-01",
        end_of_a_streamed_thought_lost,
        "after thoughts 'I', but the other answer (not streamed, without MTP) says 'Tale 0.' after thoughts 'I think.'",
    ),
    ("REASON-02", thoughts_without_thinking, "thoughts, though thinking is off: 'I think.'"),
    ("REASON-03", text_swallowed_at_the_boundary, "content is '' where 'Tale 0.' was asked for"),
    ("REASON-04", history_changes_the_answer, "content is 'I remember.' where"),
    ("GRAMMAR-01", schema_ignored, "content does not follow its schema: $ '\"days\" is a required property'"),
    ("GRAMMAR-02", grammar_skipped_at_the_boundary, 'content is not JSON: {"days": 0}{"days": 0}'),
    ("GRAMMAR-03", called_in_place_of_json, "1 calls where 0 were asked for"),
    ("GRAMMAR-04", no_choice, "content is 'Perhaps.', which is none of the choices"),
    ("GRAMMAR-04", another_choice, r"content is 'none', which /The code is \d\./ does not match"),
    ("GRAMMAR-05", corrupt_json_at_once, 'content is not JSON: {"days":'),
    ("GRAMMAR-05", another_value_at_once, 'content is {"days": 9} where {"days": 0} was asked for'),
    ("API-01", no_id_from_responses, "the ids of the calls are [''], but each call needs its own id"),
    ("API-02", other_arguments_from_anthropic, "the arguments of call 1 are {} where"),
    ("API-03", end_of_turn_in_a_completion, "raw <turn|> in content"),
    ("API-04", server_error_for_a_wrong_request, "malformed-json got HTTP 500 where 400 or 422 is right"),
    ("API-04", no_answer_to_a_wrong_request, "unknown-model got no answer where 404 is right: ReadTimeout"),
    ("API-07", server_error_for_a_broken_grammar, "broken-grammar got HTTP 500 where 400 or 422 is right"),
    ("API-05", request_runs_on, "eight clients leave at once: 3 requests are still running"),
    ("API-05", answers_written_for_nobody, "eight clients leave at once: the server wrote all 4096 tokens"),
    ("API-05", cache_kept, "one client leaves: 25.0% of the KV cache is still in use"),
    (
        "API-05",
        some_were_not_answered,
        "eight clients leave at once: only 5 of 8 clients had received a part of their answer",
    ),
    ("API-06", another_answer_afterwards, "the answer is <pad> where Tale. is expected"),
]


def nothing_asked(d: Documents) -> None:
    for name, each in d.items():
        if name.startswith("chat-"):
            each["answers"] = []


def nothing_tried(d: Documents) -> None:
    seen = d["parsers"]
    for each in (*seen["round_trip"].values(), *seen["chunking"].values(), seen["published"], seen["any_text"]):
        each["examples"] = 0
    for each in seen["answers"].values():
        each["examples"] = 0


def nobody_was_wrong(d: Documents) -> None:
    d["bad_requests"].update(requests=[], departures=[], before="", after="")


ASKED = [
    *(f"TOOL-{number:02}" for number in range(3, 12)),
    *(f"REASON-{number:02}" for number in range(1, 5)),
    *(f"GRAMMAR-{number:02}" for number in range(1, 6)),
    *(f"API-{number:02}" for number in range(1, 4)),
]
NOTHING: list[Row] = [
    *((id, nothing_asked, "was asked with MTP") for id in ASKED),
    *((f"PARSE-{number:02}", nothing_tried, "nothing was looked at") for number in range(1, 13)),
    ("API-04", nobody_was_wrong, "nothing was looked at"),
    ("API-07", nobody_was_wrong, "nothing was looked at"),
    ("API-05", nobody_was_wrong, "nothing was looked at"),
    ("API-06", nobody_was_wrong, "there was no answer to compare with"),
]
