"""``python -m conformance.inside_vllm.moe_oracle``: vLLM's own choice of a MoE kernel for every device, without a GPU.

It prints JSON on its last line. It is a process of its own, because it replaces vLLM's platform by a stand-in.
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
    """The selection on every device; or ``unsupported`` with the version and the name that this vLLM lacks."""
    try:
        devices = {name: on_device(sm, facts) for name, sm in facts.devices.items()}
    except Unsupported as reason:
        return {"unsupported": str(reason)}
    return {"vllm_version": adapters.vllm_version(), "devices": devices}


def on_device(sm: int | None, facts: MoeFacts) -> Answer:
    """The order, the choice, every backend's answer, and the results for backends that are requested by name."""
    config = oracle_adapters.moe_config(facts.moe)
    _import_kernels(config)  # before the stand-in: a module that is imported later would keep it
    with oracle_adapters.device(sm):
        backends = oracle_adapters.order(config)
        return {
            "order": [str(backend.value) for backend in backends],
            **outcome(lambda: oracle_adapters.select(config)),
            "backends": {str(backend.value): backend_answer(backend, config) for backend in backends},
            "explicit": {word: explicit_answer(word, facts.moe) for word in facts.walk.explicit},
        }


def outcome(choose: Callable[[], str]) -> dict[str, str | None]:
    """The chosen backend, or the error instead of it, such as "ValueError: …".

    Raises:
        Unsupported: this vLLM lacks a name that the question needs.
    """
    try:
        return {"chosen": choose(), "error": None}
    except Unsupported:
        raise
    except Exception as error:  # any error of vLLM is the fact to report
        return {"chosen": None, "error": f"{type(error).__name__}: {error}"}


def explicit_answer(word: str, experts: Experts) -> dict[str, str | None]:
    """The result of ``--moe-backend word``."""
    config = oracle_adapters.moe_config(experts, word)
    return {"backend": oracle_adapters.requested(word), **outcome(lambda: oracle_adapters.select(config))}


def backend_answer(backend: Any, config: Any) -> Answer:
    """The state of a backend: accepted if one of its kernels is, else not evaluated if one is not, else refused."""
    kernels, broken = attempt(lambda: oracle_adapters.kernels(backend))
    answers = [kernel_answer(kernel, config) for kernel in kernels or ()]
    if not answers:
        answers = [answer(str(backend.value), NOT_EVALUATED, broken or "it has no kernel")]
    states = [answer["state"] for answer in answers]
    state = next(state for state in (ACCEPTED, NOT_EVALUATED, REFUSED) if state in states)
    return {"state": state, "kernels": answers}


def kernel_answer(kernel: Any, config: Any) -> Answer:
    """A kernel's answer, and the questions that it answers with no.

    The kernel is refused if vLLM refuses it even when its library is assumed to be installed. If only the library is
    missing, or a question fails, the kernel is not evaluated.
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
        # vLLM may call the missing library and fail.
        assumed, broken = attempt(lambda: oracle_adapters.support(kernel, config))
    supported, reason = assumed or (not objections, broken)
    if not supported:
        return answer(name, REFUSED, reason, objections, missing)
    return answer(name, NOT_EVALUATED, "; ".join(map(absent, sorted(missing))) or reason, (), missing)


def absent(library: str) -> str:
    """Why vLLM cannot use a library; an installed one may be too old, or need nvcc."""
    return f"{'not installed' if importlib.util.find_spec(library) is None else 'installed, not usable'}: {library}"


def answer(
    kernel: str, state: str, reason: str = "", objections: Sequence[str] = (), libraries: Iterable[str] = ()
) -> Answer:
    """One kernel's answer as a row of the observation."""
    facts = {"state": state, "reason": reason, "objections": list(objections), "libraries": sorted(libraries)}
    return {"kernel": kernel} | facts


def attempt(question: Callable[[], Value]) -> tuple[Value | None, str]:
    """The answer to a question; or None and the reason if it fails, for example without a compiled operation.

    Raises:
        Unsupported: this vLLM lacks a name that the question needs.
    """
    try:
        return question(), ""
    except Unsupported:
        raise
    except Exception as error:  # this build of vLLM may lack anything
        return None, f"not in this build: {type(error).__name__}: {error}"


def _import_kernels(config: Any) -> None:
    for backend in oracle_adapters.order(config):
        attempt(functools.partial(oracle_adapters.kernels, backend))


if __name__ == "__main__":
    print(json.dumps(walk(load_moe_facts())))
