"""Captured draft steps as PARITY groups and recognises them; captures and reference are made up here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conformance.reference import draft_steps
from conformance.reference.draft_steps import Reference, Request, Seen, Step
from conformance.views.parity import Parity

K, WIDTH, VOCABULARY = 3, 8, 40
UNSAID = 35  # a token that no request has
SHORT, LONG = Request("short", tuple(range(1, 9))), Request("long", tuple(range(11, 31)))
Given = dict[str, Tensor]
Change = Callable[[int, int, Given], None]  # of which proposal, which step, what it is given


class MadeUp(Reference):
    """A reference with hidden states at random that agrees with whatever a step computed."""

    def __init__(self, *requests: Request) -> None:
        self._requests = [(each, Seen(torch.randn(len(each.ids), WIDTH), {})) for each in requests]
        self.never = torch.tensor([VOCABULARY - 1])

    def compute(self, _: Seen, __: int, steps: Sequence[Step]) -> tuple[Tensor, Tensor]:
        return torch.stack([step.projected for step in steps]), torch.zeros(len(steps), VOCABULARY)


def nothing(proposal: int, step: int, given: Given) -> None:
    """What a healthy draft is given."""


def capture(
    file: Path, reference: MadeUp, proposals: Sequence[Sequence[tuple[Request, int]]], change: Change = nothing
) -> Path:
    """Proposals of requests at places; past a request's end its tokens are zeros."""
    known, saved = dict(reference._requests), {}
    for number, rows in enumerate(proposals):
        ids, places = [torch.tensor([*each.ids, *[0] * 9]) for each, _ in rows], [place for _, place in rows]
        states = [torch.cat((known[each].hidden, torch.randn(9, WIDTH))) for each, _ in rows]
        given = {
            "positions": torch.tensor(places),
            "input_ids": torch.stack([each[place + 1] for each, place in zip(ids, places, strict=True)]),
            "hidden_states": torch.stack([each[place] for each, place in zip(states, places, strict=True)]),
        }
        for step in range(K):
            change(number, step, given)
            made = {name: torch.randn(len(rows), WIDTH) for name in ("draft_hidden", "projected")}
            top = torch.randn(len(rows), VOCABULARY).topk(5)
            logits = {"hidden": made["draft_hidden"].clone(), "values": top.values, "ids": top.indices}
            for kind, each in (("call", given | made), ("logits", logits)):
                saved |= {f"{kind}.{number * K + step:05}.{name}": value.clone() for name, value in each.items()}
            allowed = torch.where(top.indices == VOCABULARY - 1, -torch.inf, top.values).argmax(-1, keepdim=True)
            given = given | {
                "input_ids": top.indices.gather(-1, allowed)[:, 0],
                "hidden_states": made["projected"].clone(),
            }
    save_file(saved, file)
    return file


@pytest.fixture
def reference() -> MadeUp:
    torch.manual_seed(0)
    return MadeUp(SHORT, LONG)


BOTH = [[(SHORT, 2), (LONG, 5)], [(SHORT, 5), (LONG, 8)], [(SHORT, 8), (LONG, 9)]]


def test_a_healthy_draft_goes_on_from_itself(tmp_path: Path, reference: MadeUp) -> None:
    steps, _ = draft_steps.compare(capture(tmp_path / "c", reference, BOTH), K, reference)
    assert [row["step"] for row in steps] == [0, 1, 2] * 5
    for row in steps:
        carried = row["carried"]
        assert (carried is None) is (row["step"] == 0)
        assert carried is None or (carried["equal"], carried["likeliest"]) == (WIDTH, [carried["token"]])


def test_what_is_given_instead_is_seen(tmp_path: Path, reference: MadeUp) -> None:
    def another(proposal: int, step: int, given: Given) -> None:
        if (proposal, step) == (1, 2):
            given["hidden_states"][1, :5] = 0.5
            given["input_ids"][0] = UNSAID

    steps, _ = draft_steps.compare(capture(tmp_path / "c", reference, BOTH, another), K, reference)
    carried = {(row["request"], row["place"], row["step"]): row["carried"] for row in steps}
    short, long = carried["short", 5, 2], carried["long", 8, 2]
    assert short["token"] == UNSAID
    assert UNSAID not in short["likeliest"]
    assert (short["equal"], long["equal"]) == (WIDTH, WIDTH - 5)


def test_a_draft_that_computes_no_numbers_is_recognised_and_fails(tmp_path: Path, reference: MadeUp) -> None:
    file = capture(tmp_path / "c", reference, BOTH)
    tensors = load_file(file)
    for name in ("call.00003.projected", "call.00004.hidden_states", "logits.00004.values"):
        tensors[name][1] = torch.nan
    save_file(tensors, file)
    rows, unrecognised = draft_steps.compare(file, K, reference)
    assert [(row["place"], row["request"]) for row in unrecognised] == [(8, "short")], "as without NaN"
    first, second = (row for row in rows if (row["request"], row["place"]) == ("long", 8) and row["step"] < 2)
    assert set(first["projected"]["found"]) == {None}
    assert second["carried"]["equal"] == WIDTH
    json.dumps(rows, allow_nan=False)
    seen = Parity.of({"k": K, "rows": rows, "unrecognised": unrecognised}, 0)
    assert seen.worst_outputs()["the worst step of long"].defect == "not a number"


def test_what_is_drafted_past_an_end_is_told_from_what_is_lost(tmp_path: Path, reference: MadeUp) -> None:
    def spoilt(proposal: int, step: int, given: Given) -> None:
        if (proposal, step) == (0, 0):
            given["input_ids"][1] = UNSAID
        if (proposal, step) == (1, 1):
            given["hidden_states"][1] = 0.5

    steps, unrecognised = draft_steps.compare(capture(tmp_path / "c", reference, BOTH, spoilt), K, reference)
    assert [(row["request"], row["place"]) for row in steps[::K]] == [("short", 2), ("short", 5), ("long", 9)]
    assert unrecognised == [
        {"rows": 2, "place": 5, "token": UNSAID, "request": None},
        {"rows": 2, "place": 8, "token": None, "request": None},
        {"rows": 2, "place": 8, "token": 0, "request": "short"},
    ]


@pytest.mark.parametrize("place", [5, 12])
def test_an_end_excuses_nothing_but_what_follows_it(tmp_path: Path, reference: MadeUp, place: int) -> None:
    def spoilt(proposal: int, step: int, given: Given) -> None:
        if proposal and not step:
            given["input_ids"][0] = UNSAID

    proposals = [[(SHORT, 5)], [(LONG, place)]]
    _, unrecognised = draft_steps.compare(capture(tmp_path / "c", reference, proposals, spoilt), K, reference)
    assert [row["request"] for row in unrecognised] == [None]


def test_two_rows_are_not_of_one_request(tmp_path: Path, reference: MadeUp) -> None:
    def doubled(proposal: int, step: int, given: Given) -> None:
        if (proposal, step) == (1, 0):
            for each in given.values():
                each[1] = each[0]

    steps, unrecognised = draft_steps.compare(capture(tmp_path / "c", reference, BOTH, doubled), K, reference)
    assert [(row["request"], row["place"]) for row in steps[2 * K :: K]] == [("short", 5), ("long", 9)]
    assert unrecognised[0] == {"rows": 2, "place": 5, "token": 7, "request": None}


def top(*pairs: tuple[float, int]) -> Any:
    return tuple(torch.tensor(each) for each in zip(*pairs, strict=True))


@pytest.mark.parametrize(
    ("found", "likeliest"),
    [
        (top((3.0, 4), (2.0, 5)), [4]),
        (top((3.0, 4), (3.0, 6), (2.0, 5)), [4, 6]),
        (top((3.0, 39), (2.0, 5), (1.0, 6)), [39, 5]),
        (None, []),
    ],
)
def test_equal_logits_are_equally_likely_and_suppressed_ones_do_not_count(found: Any, likeliest: list[int]) -> None:
    step = Step(0, 0, torch.zeros(1), torch.zeros(1), found)
    assert step.likeliest(torch.tensor([39])) == likeliest
