from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from negative_controls.faux_servers import BOUNDS, PROFILE, launch, with_prompts

from conformance.errors import ObservationError, UsageError
from conformance.serving.server import Server, Start, start_together
from conformance.workload.client import client
from conformance.workload.prompts import Prompt, load_prompts, spread

PROMPT = Prompt(id="p", category="c", licence="CC0-1.0", messages=({"role": "user", "content": "hi"},), max_tokens=64)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*arguments: str) -> Server:
        begun = Start(launch("good", *arguments), "mtp", tmp_path / "mtp.log", BOUNDS, lambda _: None)
        outcome = start_together([begun], 0.5, print)["mtp"]
        assert isinstance(outcome, Server)
        started.append(outcome)
        return outcome

    yield start
    for server in started:
        server.stop(0.5)


def test_an_answer_whole_and_streamed(serve: Callable[..., Server]) -> None:
    with client(serve(), 10) as asking:
        whole, streamed = asking.ask(PROMPT, seed=1), asking.ask(PROMPT, stream=True)
    assert whole.text == streamed.text == whole.content == "echo hi"
    assert (whole.finish_reason, whole.prompt_tokens, whole.output_tokens) == ("stop", 3, 9)
    assert whole.token_ids == tuple(range(9))
    assert 0.01 < whole.seconds < 10
    assert replace(streamed, seconds=whole.seconds, arrivals=()) == whole
    assert len(streamed.arrivals) == 1


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_separator_in_an_answer_ends_no_event(serve: Callable[..., Server], separator: str) -> None:
    said = replace(PROMPT, messages=({"role": "user", "content": f"a{separator}b"},))
    with client(serve(), 10) as asking:
        assert asking.ask(said, stream=True).text == f"echo a{separator}b"


def test_the_counts_of_a_request_come_with_its_answer(serve: Callable[..., Server]) -> None:
    server = serve("--k", "4", "--per-request-spec-decode-metrics", "summary")
    with client(server, 10) as asking:
        whole, streamed = asking.ask(PROMPT), asking.ask(PROMPT, stream=True)
    assert whole.speculation == streamed.speculation
    assert whole.speculation is not None
    assert whole.speculation["acceptance_histogram"] == [0, 0, 0, 2, 0]


def test_a_tool_call_is_put_together_from_its_pieces(serve: Callable[..., Server]) -> None:
    with client(serve(), 10) as asking:
        whole, streamed = (asking.ask(replace(PROMPT, tools=(TOOL,)), stream=stream) for stream in (False, True))
    assert whole.tool_calls == streamed.tool_calls == ({"name": "weather", "arguments": '{"city": "Oslo"}'},)
    assert whole.reasoning == streamed.reasoning == "hm"
    assert whole.text == 'hm{"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}'


def test_in_turn_takes_longer_than_at_once(serve: Callable[..., Server]) -> None:
    prompts = [replace(PROMPT, id=str(number)) for number in range(8)]
    with client(serve("--seconds", "0.2"), 10) as asking:
        in_turn = [asking.ask(prompt) for prompt in prompts]
        asking.ask_at_once(prompts)  # opens the connections
        at_once, short = asking.ask_at_once(prompts)
    assert [answer.id for answer in in_turn] == [answer.id for answer in at_once] == [str(n) for n in range(8)]
    assert all(answer.seconds >= 0.2 for answer in in_turn)
    assert 0.2 <= short < sum(answer.seconds for answer in in_turn)


def test_rubbish_is_an_error_with_a_sentence(serve: Callable[..., Server]) -> None:
    with client(serve("--fault", "rubbish"), 10) as asking:
        with pytest.raises(ObservationError, match=r"^mtp server: prompt p got no usable answer \("):
            asking.ask(PROMPT)
        with pytest.raises(ObservationError, match="prompt p got no usable answer"):
            asking.ask(PROMPT, stream=True)
        with pytest.raises(ObservationError, match="no usable answer"):
            asking.ask_at_once([PROMPT, PROMPT])


def test_a_server_that_is_gone_is_the_reason(serve: Callable[..., Server]) -> None:
    server = serve()
    server.stop(0.5)
    with client(server, 10) as asking, pytest.raises(ObservationError, match=r"^mtp server died: "):
        asking.ask(PROMPT)


def test_a_request_has_a_bound(serve: Callable[..., Server]) -> None:
    with client(serve("--seconds", "0.2"), 0.05) as asking, pytest.raises(ObservationError, match="APITimeoutError"):
        asking.ask(PROMPT)


def test_prompts_are_read(tmp_path: Path) -> None:
    profile = with_prompts(PROFILE, tmp_path / "prompts")
    mixed = load_prompts(profile.prompts / "mixed.jsonl")
    assert [prompt.id for prompt in spread(mixed, 4)] == ["code-0", "prose-0", "json-0", "code-1"]
    assert len(spread(mixed, 1000)) == len(mixed) == 12
    tools = load_prompts(profile.prompts / "tools.jsonl")
    assert tools[0].expected == {"name": "weather", "arguments": {"city": "Oslo"}}


ROW = {
    "id": "a",
    "category": "c",
    "licence": "CC0-1.0",
    "messages": [{"role": "user", "content": "x"}],
    "max_tokens": 4,
}


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([json.dumps(ROW), "{"], "p.jsonl:2: not valid JSON"),
        ([json.dumps({**ROW, "max_token": 4})], 'p.jsonl:1: key "max_token" is unknown; remove it. Did you mean'),
        ([json.dumps({**ROW, "max_tokens": "4"})], 'p.jsonl:1: key "max_tokens" is "4"; it must be a valid integer.'),
        ([json.dumps(ROW), json.dumps(ROW)], 'p.jsonl: id "a" occurs more than once; rename one.'),
        ([], "p.jsonl holds no prompts; add some."),
    ],
)
def test_spoilt_prompts_are_refused(tmp_path: Path, lines: list[str], sentence: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(UsageError) as raised:
        load_prompts(path)
    assert sentence in str(raised.value)


def test_absent_prompts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        load_prompts(tmp_path / "p.jsonl")
