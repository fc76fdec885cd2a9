"""The probe answers questions to a running server, such as ``POST /collective_rpc {"method": "conformance_describe"}``.

vLLM adds this class to its workers (``--worker-extension-cls conformance.inside_vllm.probe.Probe``). The route exists
only with ``VLLM_SERVER_DEV_MODE=1``. Every method returns JSON, once for each worker. A fact that this vLLM does not
provide is ``{"unsupported": sentence}``; a fact about the draft is null without a draft.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conformance.errors import Unsupported
from conformance.inside_vllm import adapters, numerics, resolved_config, snapshot
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
    """The fact, or why this vLLM does not provide it."""
    try:
        return fact(subject)
    except Unsupported as reason:
        return {"unsupported": str(reason)}


class Probe:
    """Mixed into vLLM's worker class; ``self`` is the worker."""

    _conformance_capture: Capture
    _conformance_acceptance: SyntheticAcceptance | None = None
    _conformance_kernels: Recording

    def conformance_describe(self) -> dict[str, Any]:
        """The classes, the wiring and the scales of target and draft."""
        facts: dict[str, Any] = {name: ask(fact, self) for name, fact in _ABOUT_THE_SERVER.items()}
        drafts = ask(adapters.has_draft, self)
        facts |= {name: ask(fact, self) if drafts else None for name, fact in _ABOUT_THE_DRAFT.items()}
        return {"vllm_version": adapters.vllm_version()} | facts

    def conformance_config(self) -> dict[str, Any]:
        """The configuration that vLLM arrived at, by field; see ``resolved_config``."""
        fields = ask(resolved_config.of_worker, self)
        if "unsupported" in fields:
            return dict(fields)
        return {"vllm_version": adapters.vllm_version(), "fields": fields}

    def conformance_moe(self) -> dict[str, Any]:
        """The class of experts, the backend and the quantisation method of every MoE layer of the target."""

        def layers(worker: Any) -> dict[str, Any]:
            found = adapters.moe_layers(adapters.target_model(worker))
            return {name: {k: ask(fact, layer) for k, fact in _ABOUT_A_MOE_LAYER.items()} for name, layer in found}

        return {"vllm_version": adapters.vllm_version(), "layers": ask(layers, self)}

    def conformance_numerics(self, layers: list[int]) -> dict[str, Any]:
        """The outputs of the draft's linears and MLPs, and of some MoE layers of the target, for fixed inputs."""
        drafts = ask(adapters.has_draft, self)
        return {
            "vllm_version": adapters.vllm_version(),
            "draft_linears": ask(numerics.draft_linears, self) if drafts else None,
            "draft_mlps": ask(numerics.draft_mlps, self) if drafts else None,
            "experts": ask(lambda worker: numerics.experts(worker, layers), self),
        }

    def conformance_capture_begin(self) -> dict[str, Any]:
        """Begin to capture every draft step."""
        try:
            self._conformance_capture = Capture(self)
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        return {"vllm_version": adapters.vllm_version()}

    def conformance_capture_end(self) -> dict[str, Any]:
        """End the capture and write it to a file in the folder of snapshots."""
        directory = os.environ.get(SNAPSHOT_DIRECTORY)
        if not directory:
            return {"unsupported": f"The server was started without {SNAPSHOT_DIRECTORY}."}
        file = Path(directory) / f"capture-{snapshot.rank()}.safetensors"
        return {"file": str(file), "calls": self._conformance_capture.end(file)}

    def conformance_coins_begin(self, rates: list[float], seed: int) -> dict[str, Any]:
        """Begin synthetic acceptance; ``rates`` are conditional, one for each position.

        Raises:
            RuntimeError: synthetic acceptance is on already.
        """
        if self._conformance_acceptance is not None:
            raise RuntimeError("synthetic acceptance is on already; end it first")
        try:
            self._conformance_acceptance = SyntheticAcceptance(self, rates, seed)
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        return {"vllm_version": adapters.vllm_version()}

    def conformance_coins_end(self) -> dict[str, Any]:
        """End synthetic acceptance, so that the target decides again; return how many drafts it decided.

        Raises:
            RuntimeError: synthetic acceptance is off.
        """
        if self._conformance_acceptance is None:
            raise RuntimeError("synthetic acceptance is off; begin it first")
        acceptance, self._conformance_acceptance = self._conformance_acceptance, None
        return {"drafts": acceptance.end()}

    def conformance_synthetic_rates(self, rates: list[float]) -> dict[str, Any]:
        """From now on vLLM accepts drafts at these conditional rates, one for each position."""
        try:
            held = adapters.synthetic_rates(self)
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        held.copy_(held.new_tensor(rates))
        return {"vllm_version": adapters.vllm_version()}

    def conformance_draft_length(self, k: int) -> dict[str, Any]:
        """Draft k tokens a step from now on."""
        try:
            adapters.set_draft_length(self, k)
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        return {"vllm_version": adapters.vllm_version(), "k": k}

    def conformance_kernels_begin(self) -> dict[str, Any]:
        """Begin to record what the device executes."""
        self._conformance_kernels = Recording()
        return {"vllm_version": adapters.vllm_version()}

    def conformance_kernels_end(self) -> dict[str, Any]:
        """End the recording; return what the device has executed, by name."""
        executed = self._conformance_kernels.end()
        return {"activity": self._conformance_kernels.activity, "executed": executed}

    def conformance_snapshot(self) -> dict[str, Any]:
        """The weights that vLLM loaded into target and draft; see ``snapshot.parameters``."""
        directory = os.environ.get(SNAPSHOT_DIRECTORY)
        if not directory:
            return {"unsupported": f"The server was started without {SNAPSHOT_DIRECTORY}."}
        try:
            return snapshot.read(Path(directory))
        except FileNotFoundError as missing:
            version = adapters.vllm_version()
            return {"unsupported": f"vLLM {version} wrote no {missing.filename} while loading; see the server's log."}
