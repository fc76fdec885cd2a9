"""Questions to a running server: ``POST /collective_rpc {"method": "conformance_describe"}`` and the like.

vLLM adds this class to its workers (``--worker-extension-cls conformance.inside_vllm.probe.Probe``); the route
exists with ``VLLM_SERVER_DEV_MODE=1``. Every method returns JSON, once per worker. A fact that this vLLM does not
offer is ``{"unsupported": sentence}``; a fact about the draft is null where there is none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conformance.errors import Unsupported
from conformance.inside_vllm import adapters, numerics, snapshot
from conformance.inside_vllm.capture import Capture
from conformance.inside_vllm.kernels import Recording
from conformance.inside_vllm.plugin import SNAPSHOT_DIRECTORY
from conformance.inside_vllm.synthetic_acceptance import SyntheticAcceptance

_ABOUT_THE_SERVER: dict[str, Callable[[Any], Any]] = {
    "platform": adapters.platform,
    "model_runner": adapters.model_runner_class,
    "target_class": adapters.target_class,
    "attention_backends": adapters.attention_backends,
}
_ABOUT_THE_DRAFT: dict[str, Callable[[Any], Any]] = {
    "drafter": adapters.drafter_class,
    "draft_class": adapters.draft_class,
    "draft_embedding_is_targets": adapters.draft_embedding_is_targets,
    "draft_normalizer": adapters.draft_normalizer,
    "draft_lm_head": adapters.draft_lm_head,
    "draft_kv_sharing": adapters.draft_kv_sharing,
    "draft_kv_scales": adapters.draft_kv_scales,
    "constant_draft_positions": adapters.constant_draft_positions,
}
_ABOUT_A_MOE_LAYER: dict[str, Callable[[Any], Any]] = {
    "experts": adapters.moe_experts,
    "backend": adapters.moe_backend,
    "quant_method": adapters.quant_method,
}


def ask(fact: Callable[[Any], Any], subject: Any) -> Any:
    """The fact, or why this vLLM does not tell."""
    try:
        return fact(subject)
    except Unsupported as reason:
        return {"unsupported": str(reason)}


class Probe:
    """Mixed into vLLM's worker class; ``self`` is the worker."""

    _conformance_capture: Capture
    _conformance_coins: SyntheticAcceptance | None = None
    _conformance_kernels: Recording

    def conformance_describe(self) -> dict[str, Any]:
        """Classes, wiring and scales of target and draft."""
        facts: dict[str, Any] = {name: ask(fact, self) for name, fact in _ABOUT_THE_SERVER.items()}
        drafts = ask(adapters.has_draft, self)
        facts |= {name: ask(fact, self) if drafts else None for name, fact in _ABOUT_THE_DRAFT.items()}
        return {"vllm_version": adapters.vllm_version()} | facts

    def conformance_moe(self) -> dict[str, Any]:
        """For every MoE layer of the target: experts class, backend and quantisation method in use."""

        def layers(worker: Any) -> dict[str, Any]:
            found = adapters.moe_layers(adapters.target_model(worker))
            return {name: {k: ask(fact, layer) for k, fact in _ABOUT_A_MOE_LAYER.items()} for name, layer in found}

        return {"vllm_version": adapters.vllm_version(), "layers": ask(layers, self)}

    def conformance_numerics(self, layers: list[int]) -> dict[str, Any]:
        """What the draft's linears and MLPs, and some MoE layers of the target, compute from fixed inputs."""
        drafts = ask(adapters.has_draft, self)
        return {
            "vllm_version": adapters.vllm_version(),
            "draft_linears": ask(numerics.draft_linears, self) if drafts else None,
            "draft_mlps": ask(numerics.draft_mlps, self) if drafts else None,
            "experts": ask(lambda worker: numerics.experts(worker, layers), self),
        }

    def conformance_capture_begin(self) -> dict[str, Any]:
        """Look at every draft step from now on."""
        try:
            self._conformance_capture = Capture(self)
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        return {"vllm_version": adapters.vllm_version()}

    def conformance_capture_end(self) -> dict[str, Any]:
        """Look no longer; the file with what was seen lies in the snapshots' folder."""
        directory = os.environ.get(SNAPSHOT_DIRECTORY)
        if not directory:
            return {"unsupported": f"The server was started without {SNAPSHOT_DIRECTORY}."}
        file = Path(directory) / f"capture-{snapshot.rank()}.safetensors"
        return {"file": str(file), "calls": self._conformance_capture.end(file)}

    def conformance_coins_begin(self, rates: list[float], seed: int) -> dict[str, Any]:
        """Let coins decide about every drafted token from now on; ``rates`` are conditional, one for each position.

        Raises RuntimeError while they already do, and ValueError for rates that are none.
        """
        if self._conformance_coins is not None:
            raise RuntimeError("coins decide already; end that first")
        try:
            self._conformance_coins = SyntheticAcceptance(self, rates, seed)
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        return {"vllm_version": adapters.vllm_version()}

    def conformance_coins_end(self) -> dict[str, Any]:
        """Let the target decide again; tells how many drafts the coins decided. RuntimeError where they did not."""
        if self._conformance_coins is None:
            raise RuntimeError("no coins decide here; begin first")
        coins, self._conformance_coins = self._conformance_coins, None
        return {"drafts": coins.end()}

    def conformance_draft_length(self, k: int) -> dict[str, Any]:
        """Draft k tokens a step from now on."""
        try:
            adapters.set_draft_length(self, k)
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        return {"vllm_version": adapters.vllm_version(), "k": k}

    def conformance_kernels_begin(self) -> dict[str, Any]:
        """Write down what the device executes from now on."""
        self._conformance_kernels = Recording()
        return {"vllm_version": adapters.vllm_version()}

    def conformance_kernels_end(self) -> dict[str, Any]:
        """What it has executed, by name."""
        executed = self._conformance_kernels.end()
        return {"activity": self._conformance_kernels.activity, "executed": executed}

    def conformance_snapshot(self) -> dict[str, Any]:
        """What the loader put into target and draft; see ``snapshot.parameters``."""
        directory = os.environ.get(SNAPSHOT_DIRECTORY)
        if not directory:
            return {"unsupported": f"The server was started without {SNAPSHOT_DIRECTORY}."}
        try:
            return snapshot.read(Path(directory))
        except FileNotFoundError as missing:
            version = adapters.vllm_version()
            return {"unsupported": f"vLLM {version} loaded nothing that left {missing.filename}; see the server's log."}
