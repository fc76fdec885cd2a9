"""The draft's captured steps compared with the draft in transformers, in float32 and from the same checkpoints.

For a request with known tokens, the target in transformers gives hidden states, keys and values at every place. A draft
step of vLLM is recognised by its inputs: the position t of the last token that the target has seen, and the token after
it. Its hidden state must be the target's at t. Its outputs must be those of ``Gemma4AssistantForCausalLM`` for the same
inputs, with the keys and values up to t. Position and keys stay those of t through all k steps, as in vLLM's proposer
(``constant_draft_positions``). The inputs of a later step are compared with the outputs of the step before: its most
likely token, and its projected state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from conformance.checkpoints.headers import read_json
from conformance.errors import ObservationError
from conformance.reference.modules import weights

SLIDING, FULL = "sliding_attention", "full_attention"
SHOWN = 64  # elements of a state that are recorded

Record = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One request: the token ids of its prompt and of its answer."""

    name: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """The outputs of the target in transformers: hidden [n, H]; keys and values [1, heads, n, d] by kind of layer."""

    hidden: Tensor
    shared: Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Step:
    """One row of one captured call of the draft, and the head's largest logits for it if they were computed."""

    position: int
    token: int
    hidden: Tensor
    projected: Tensor
    top: tuple[Tensor, Tensor] | None  # values, token ids

    def likeliest(self, never: Tensor) -> list[int]:
        """The most likely tokens without those that are never drafted; in BF16 several may be equal."""
        if self.top is None:
            return []
        values, ids = self.top
        best = values[~torch.isin(ids, never)].max()  # NaN if one is NaN, as for argmax
        found: list[int] = ids[(values >= best) | _same(values, best)].tolist()
        return found


@dataclass(frozen=True)
class Drafted:
    """One row of a proposal: its first step, None if no row of the first call continues in it, and the later steps."""

    first: Step | None
    later: tuple[Step, ...]


def load_model(kind: Any, config: Any, folder: Path) -> Any:
    """A transformers model in float32 with a checkpoint's weights; NVFP4 experts are decoded."""
    held, model = weights(folder), kind(config).float().eval()

    @lru_cache(maxsize=1)  # both tensors of a layer follow one another
    def experts(layer: str) -> tuple[Tensor, Tensor]:
        return held.experts(layer, int(held.text["num_experts"]))

    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            layer, fused, part = name.partition("experts.")
            if fused and part in ("gate_up_proj", "down_proj"):
                gate_up, down = experts(layer)
                tensor.copy_(gate_up if part == "gate_up_proj" else down)
            elif name in held:
                tensor.copy_(held[name])
    return model


def target_model(folder: Path) -> Any:
    """The text target in transformers."""
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    return load_model(Gemma4ForCausalLM, Gemma4TextConfig(**weights(folder).text), folder)


def draft_model(folder: Path) -> Any:
    """The draft in transformers."""
    from transformers import Gemma4AssistantConfig, Gemma4AssistantForCausalLM

    config = {k: v for k, v in read_json(folder / "config.json").items() if k not in ("architectures", "dtype")}
    return load_model(Gemma4AssistantForCausalLM, Gemma4AssistantConfig(**config), folder)


def suppressed(folder: Path) -> list[int]:
    """The ids of the tokens that must never be generated."""
    file = folder / "generation_config.json"
    found = read_json(file).get("suppress_tokens") if file.is_file() else None
    return list(found or ())


def run_target(model: Any, ids: Sequence[int]) -> Seen:
    """Run the target over a whole request."""
    with torch.no_grad():
        out = model.model(input_ids=torch.tensor([ids]), use_cache=False, return_shared_kv_states=True)
    return Seen(out.last_hidden_state[0], dict(out.shared_kv_states))


def proposals(file: Path, k: int) -> Iterator[list[Drafted]]:
    """The captured steps, proposal by proposal and row by row; k is 2 or more.

    A proposal is one call over all tokens that the target has just seen, and k - 1 calls with one row for each request.
    The second call continues the row of the first call whose projected state it gets.

    Raises:
        ObservationError: the calls cannot be grouped in this way.
    """
    tensors = load_file(file)
    calls, logits = _by_number(tensors, "call"), _by_number(tensors, "logits")
    if not calls or len(calls) % k:
        raise ObservationError(
            f"{len(calls)} calls of the draft were captured, which do not form proposals of {k} steps"
        )
    heads = {_key(row): (each, number) for each in logits for number, row in enumerate(each["hidden"])}
    for start in range(0, len(calls), k):
        first, *later = calls[start : start + k]
        rows = len(later[0]["positions"])
        carried = [_find(first["projected"], later[0]["hidden_states"][row]) for row in range(rows)]
        yield [
            Drafted(
                None if begun is None else _step(first, begun, heads),
                tuple(_step(call, row, heads) for call in later),
            )
            for row, begun in enumerate(carried)
        ]


def _by_number(tensors: Mapping[str, Tensor], kind: str) -> list[dict[str, Tensor]]:
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        if prefix == kind:
            number, _, field = rest.partition(".")
            grouped.setdefault(number, {})[field] = tensor
    return [grouped[number] for number in sorted(grouped)]


def _key(row: Tensor) -> bytes:
    raw: bytes = row.contiguous().view(torch.uint8).numpy().tobytes()
    return raw


def _find(rows: Tensor, wanted: Tensor) -> int | None:
    equal = _same(rows, wanted).all(-1).nonzero()
    return int(equal[-1]) if len(equal) else None


def _same(one: Tensor, other: Tensor) -> Tensor:
    """Where two tensors are equal; NaN equals NaN, because values are copied."""
    return (one == other) | (one.isnan() & other.isnan())


def _step(call: Mapping[str, Tensor], row: int, heads: Mapping[bytes, Any]) -> Step:
    found = heads.get(_key(call["draft_hidden"][row]))
    top = (found[0]["values"][found[1]], found[0]["ids"][found[1]]) if found else None
    return Step(
        position=int(call["positions"][row]),
        token=int(call["input_ids"][row]),
        hidden=call["hidden_states"][row].float(),
        projected=call["projected"][row].float(),
        top=top,
    )


class Reference:
    """The pair in transformers, and its outputs for some requests."""

    def __init__(self, target: Path, draft: Path, requests: Sequence[Request]) -> None:
        weights(target).choose_threads()
        self._draft = draft_model(draft)
        self.never = torch.tensor(suppressed(draft), dtype=torch.int64)
        self._window = int(weights(draft).text["sliding_window"])
        model = target_model(target)
        self._embedding = model.model.embed_tokens.weight  # unscaled; the draft multiplies by the root of the width
        self._requests = [(request, run_target(model, request.ids)) for request in requests]

    def owner_of(self, step: Step) -> tuple[Request, Seen] | None:
        """The request of a first step: the one with the closest hidden state at its position."""
        place = step.position
        fitting = [
            (request, seen)
            for request, seen in self._requests
            if place + 1 < len(request.ids) and request.ids[place + 1] == step.token
        ]
        return min(fitting, key=lambda each: float((each[1].hidden[place] - step.hidden).norm()), default=None)

    def compute(self, seen: Seen, place: int, steps: Sequence[Step]) -> tuple[Tensor, Tensor]:
        """The projected states [steps, H] and logits [steps, vocabulary] of steps at one place, from captured inputs.

        The steps are a batch: each has its own inputs, and all have the position, keys and values of the place.
        """
        scale, count = math.sqrt(self._embedding.shape[1]), len(steps)
        inputs = torch.stack([torch.cat((self._embedding[step.token] * scale, step.hidden)) for step in steps])[:, None]
        first = {SLIDING: max(0, place + 1 - self._window), FULL: 0}
        shared = {
            kind: tuple(part[:, :, first[kind] : place + 1].expand(count, -1, -1, -1) for part in both)
            for kind, both in seen.shared.items()
        }
        positions = torch.full((count, 1), place)
        with torch.no_grad():
            out = self._draft(inputs_embeds=inputs, position_ids=positions, shared_kv_states=shared)
        return out.last_hidden_state[:, 0], out.logits[:, 0]


def compare(file: Path, k: int, reference: Reference) -> tuple[list[Record], list[Record]]:
    """Every captured draft step at a known place of a request, and every proposal at no known place.

    Raises:
        ObservationError: the captured calls cannot be grouped into proposals.
    """
    steps: list[Record] = []
    unrecognised: list[Record] = []
    reached: dict[Request, int] = {}  # each request's last place
    for proposal in proposals(file, k):
        owners = _owners(reference, proposal)
        here = {owner[0] for owner in owners if owner}
        for row, owner in zip(proposal, owners, strict=True):
            if row.first and owner:
                reached[owner[0]] = row.first.position
                steps += _compare_steps(reference, *owner, (row.first, *row.later), len(proposal))
            else:
                ended = _ended_request(
                    row.first, k, {request: at for request, at in reached.items() if request not in here}
                )
                unrecognised.append(_unrecognised(row, ended, len(proposal)))
                if row.first and ended:
                    reached[ended] = row.first.position
    return steps, unrecognised


def _owners(reference: Reference, proposal: Sequence[Drafted]) -> list[tuple[Request, Seen] | None]:
    """The owners of a proposal's rows; None for a row of no request, or of a request that another row belongs to."""
    found: list[tuple[Request, Seen] | None] = []
    for row in proposal:
        owner = reference.owner_of(row.first) if row.first else None
        taken = owner and any(owner[0] is other[0] for other in found if other)
        found.append(None if taken else owner)
    return found


def _ended_request(first: Step | None, k: int, reached: Mapping[Request, int]) -> Request | None:
    """The request that ended just before a first step; servers draft on until they notice the end."""
    if first is None:
        return None
    fitting = (
        request
        for request, place in reached.items()
        if place < first.position <= place + k + 1 and first.position + 1 >= len(request.ids)
    )
    return next(fitting, None)


def _unrecognised(row: Drafted, ended: Request | None, rows: int) -> Record:
    """A row of a proposal that belongs to no known place."""
    return {
        "rows": rows,
        "place": (row.first or row.later[0]).position,
        "token": row.first.token if row.first else None,
        "request": ended.name if ended else None,
    }


def _compare_steps(
    reference: Reference, request: Request, seen: Seen, steps: Sequence[Step], rows: int
) -> Iterator[Record]:
    """The steps of one row of a proposal, each with its reference."""
    place = steps[0].position
    for number, (step, projected, logits) in enumerate(zip(steps, *reference.compute(seen, place, steps), strict=True)):
        yield {
            "request": request.name,
            "rows": rows,
            "place": place,
            "step": number,
            "position": step.position,
            "hidden": _found_and_expected(step.hidden, seen.hidden[place]) if number == 0 else None,
            "carried": _compare_carried(steps[number - 1], step, reference.never) if number else None,
            "projected": _found_and_expected(step.projected, projected),
            "logits": None if step.top is None else _found_and_expected(step.top[0], logits[step.top[1]]),
            "token": None if step.top is None else int(step.top[1][0]),
            "expected_token": int(logits.argmax()),
            "gap": None if step.top is None else _number(float(logits.max() - logits[step.top[1][0]])),
        }


def _compare_carried(before: Step, step: Step, never: Tensor) -> Record:
    """The inputs of a step and the outputs of the step before; the inputs are copies, so they must be equal."""
    return {
        "token": step.token,
        "likeliest": before.likeliest(never),
        "equal": int(_same(step.hidden, before.projected).sum()),
        "width": len(step.hidden),
    }


def _found_and_expected(found: Tensor, expected: Tensor) -> dict[str, list[float | None]]:
    return {
        "found": [_number(each) for each in found[:SHOWN].tolist()],
        "expected": [_number(each) for each in expected[:SHOWN].tolist()],
    }


def _number(value: float) -> float | None:
    """The value, or None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
