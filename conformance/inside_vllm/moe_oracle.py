"""``python -m conformance.inside_vllm.moe_oracle``: vLLM's own choice of a MoE kernel on every device, without one.

Prints one line of JSON, last. A process of its own, because it puts a stand-in where vLLM has its platform.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from conformance.errors import Unsupported
from conformance.inside_vllm import adapters, oracle_adapters
from conformance.profile.moe_facts import Experts, MoeFacts, load_moe_facts

Answer = dict[str, Any]
Value = TypeVar("Value")
ACCEPTED, REFUSED, NOT_EVALUATED = "accepted", "refused", "not evaluated"


def walk(facts: MoeFacts) -> Answer:
    """The selection on every device; ``unsupported`` instead, with the version and the name, where vLLM moved one."""
    try:
        devices = {name: on_device(sm, facts) for name, sm in facts.devices.items()}
    except Unsupported as reason:
        return {"unsupported": str(reason)}
    return {"vllm_version": adapters.vllm_version(), "devices": devices}


def on_device(sm: int | None, facts: MoeFacts) -> Answer:
    """Order, choice, every backend's answer, and what becomes of backends that are asked for by name."""
    config = oracle_adapters.moe_config(facts.moe)
    _import_kernels(config)  # first: a module that is imported later would keep the stand-in
    with oracle_adapters.device(sm):
        backends = oracle_adapters.order(config)
        return {
            "order": [str(backend.value) for backend in backends],
            **outcome(lambda: oracle_adapters.select(config)),
            "backends": {str(backend.value): backend_answer(backend, config) for backend in backends},
            "explicit": {word: explicit_answer(word, facts.moe) for word in facts.walk.explicit},
        }


def outcome(choose: Callable[[], str]) -> dict[str, str | None]:
    """The chosen backend, or the error instead of one as "ValueError: …"."""
    try:
        return {"chosen": choose(), "error": None}
    except Unsupported:
        raise
    except Exception as error:  # whatever vLLM says is the fact
        return {"chosen": None, "error": f"{type(error).__name__}: {error}"}


def explicit_answer(word: str, experts: Experts) -> dict[str, str | None]:
    """What ``--moe-backend word`` comes to."""
    config = oracle_adapters.moe_config(experts, word)
    return {"backend": oracle_adapters.requested(word), **outcome(lambda: oracle_adapters.select(config))}


def backend_answer(backend: Any, config: Any) -> Answer:
    """Accepted if one of its kernels is, else not evaluated if one could not be, else refused."""
    kernels, broken = attempt(lambda: oracle_adapters.kernels(backend))
    answers = [kernel_answer(kernel, config) for kernel in kernels or ()]
    if not answers:
        answers = [answer(str(backend.value), NOT_EVALUATED, broken or "it has no kernel")]
    states = [answer["state"] for answer in answers]
    state = next(state for state in (ACCEPTED, NOT_EVALUATED, REFUSED) if state in states)
    return {"state": state, "kernels": answers}


def kernel_answer(kernel: Any, config: Any) -> Answer:
    """A kernel's answer, and the questions that it says no to.

    It is refused where vLLM refuses it even with its library assumed; where only the library is missing, or the
    question breaks, it is not evaluated.
    """
    name = kernel.__name__
    truth, broken = attempt(lambda: oracle_adapters.support(kernel, config))
    if truth is None:
        return answer(name, NOT_EVALUATED, broken)
    if truth[0]:
        return answer(name, ACCEPTED)
    with oracle_adapters.libraries_assumed(kernel) as missing:
        questions = oracle_adapters.questions(kernel, config)
        objections = [what for what, ask in questions.items() if attempt(ask)[0] is False]
        # It may go on into the library that is not there, and break.
        assumed, broken = attempt(lambda: oracle_adapters.support(kernel, config))
    supported, reason = assumed or (not objections, broken)
    if not supported:
        return answer(name, REFUSED, reason, objections, missing)
    return answer(name, NOT_EVALUATED, "; ".join(map(absent, sorted(missing))) or reason, (), missing)


def absent(library: str) -> str:
    """Why vLLM cannot use a library; one that is installed may be too old, or want nvcc."""
    return f"{'not installed' if importlib.util.find_spec(library) is None else 'installed, not usable'}: {library}"


def answer(
    kernel: str, state: str, reason: str = "", objections: Sequence[str] = (), libraries: Iterable[str] = ()
) -> Answer:
    """One row of the observation."""
    facts = {"state": state, "reason": reason, "objections": list(objections), "libraries": sorted(libraries)}
    return {"kernel": kernel} | facts


def attempt(question: Callable[[], Value]) -> tuple[Value | None, str]:
    """The answer; None where the question broke, for instance for want of a compiled operation, and why."""
    try:
        return question(), ""
    except Unsupported:
        raise
    except Exception as error:  # whatever is missing from this build
        return None, f"not in this build: {type(error).__name__}: {error}"


def _import_kernels(config: Any) -> None:
    for backend in oracle_adapters.order(config):
        attempt(functools.partial(oracle_adapters.kernels, backend))


if __name__ == "__main__":
    print(json.dumps(walk(load_moe_facts())))
