"""Gemma 4's text model and its MTP draft, written for fast training on few CPU cores.

Parameter names, shapes and arithmetic are those of transformers' ``Gemma4ForCausalLM`` and
``Gemma4AssistantForCausalLM``, so state dicts can be exchanged; ``tests/miniature/test_miniature.py`` compares the
outputs. Only the order of computation differs: every expert runs on every token as one wide matrix product, and the
router's weights (zero for experts that are not chosen) mask the result; all draft positions are computed at once; and
``torch.compile`` fuses the rest. This is three times faster on few cores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLIDING, FULL = "sliding_attention", "full_attention"
KeysValues = tuple[Tensor, Tensor]


class Masks(NamedTuple):
    """Boolean attention masks [batch, 1, queries, keys], True where a query sees a key."""

    sliding: Tensor
    full: Tensor


class Rope(NamedTuple):
    """Cosines and sines [batch, 1, queries, head_dim]."""

    cos: Tensor
    sin: Tensor


class RMSNorm(nn.Module):
    """Root mean square norm; ``weight`` multiplies directly (Gemma 4 has no ``1 + weight``)."""

    def __init__(self, size: int, with_scale: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size)) if with_scale else None

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return x if self.weight is None else x * self.weight


def rope_frequencies(head_dim: int, parameters: dict[str, Any]) -> Tensor:
    """Inverse frequencies [head_dim / 2]; the "proportional" kind rotates only a first part of the pairs."""
    rotated = int(parameters.get("partial_rotary_factor", 1.0) * head_dim // 2)
    exponents = torch.arange(0, 2 * rotated, 2, dtype=torch.float32) / head_dim
    return F.pad(parameters["rope_theta"] ** -exponents, (0, head_dim // 2 - rotated))


def rope(positions: Tensor, frequencies: Tensor) -> Rope:
    """Rotary tables for integer positions [batch, queries]."""
    angles = positions[:, None, :, None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return Rope(angles.cos(), angles.sin())


def rotate(x: Tensor, table: Rope) -> Tensor:
    """Rotate [batch, heads, queries, head_dim] by the table, halves paired as in NeoX."""
    first, second = x.chunk(2, dim=-1)
    return x * table.cos + torch.cat((-second, first), dim=-1) * table.sin


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


class Attention(nn.Module):
    """Attention with scale 1; a layer that shares keys and values has queries only, and reads another layer's."""

    def __init__(self, config: dict[str, Any], layer_type: str, shared: bool) -> None:
        super().__init__()
        full = layer_type == FULL
        hidden, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim = config["global_head_dim"] if full else config["head_dim"]
        self.kv_heads = config["num_global_key_value_heads"] or kv_heads if full else kv_heads
        self.q_proj = _linear(hidden, heads * self.head_dim)
        self.q_norm = RMSNorm(self.head_dim)
        self.o_proj = _linear(heads * self.head_dim, hidden)
        self.shared = shared
        if not shared:
            self.k_proj = _linear(hidden, self.kv_heads * self.head_dim)
            self.k_norm = RMSNorm(self.head_dim)
            self.v_norm = RMSNorm(self.head_dim, with_scale=False)
            # attention_k_eq_v: full layers take the values from the key projection.
            same = full and config["attention_k_eq_v"]
            self.v_proj = None if same else _linear(hidden, self.kv_heads * self.head_dim)

    def keys_values(self, x: Tensor, table: Rope) -> KeysValues:
        shape = (x.shape[0], x.shape[1], self.kv_heads, self.head_dim)
        raw = self.k_proj(x).view(shape).transpose(1, 2)
        values = raw if self.v_proj is None else self.v_proj(x).view(shape).transpose(1, 2)
        return rotate(self.k_norm(raw), table), self.v_norm(values)

    def forward(self, x: Tensor, table: Rope, mask: Tensor, given: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """``given``: the other layer's keys and values if this one shares them, otherwise the cached ones so far."""
        batch, queries, _ = x.shape
        q = self.q_proj(x).view(batch, queries, -1, self.head_dim).transpose(1, 2)
        q = rotate(self.q_norm(q), table)
        if self.shared:
            assert given is not None
            keys, values = given
        else:
            keys, values = self.keys_values(x, table)
            if given is not None:
                keys, values = torch.cat((given[0], keys), 2), torch.cat((given[1], values), 2)
        groups = q.shape[1] // keys.shape[1]
        out = F.scaled_dot_product_attention(
            q, keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1), attn_mask=mask, scale=1.0
        )
        return self.o_proj(out.transpose(1, 2).reshape(batch, queries, -1)), (keys, values)


class MLP(nn.Module):
    """Gated MLP with tanh-approximated GELU."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = _linear(hidden, intermediate)
        self.up_proj = _linear(hidden, intermediate)
        self.down_proj = _linear(intermediate, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Router(nn.Module):
    """Softmax over all experts; the top k are normalised to sum 1 and multiplied by a scale of each expert."""

    def __init__(self, hidden: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden, with_scale=False)
        self.proj = _linear(hidden, experts)
        self.scale = nn.Parameter(torch.ones(hidden))
        self.per_expert_scale = nn.Parameter(torch.ones(experts))
        self.top_k = top_k

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [..., experts], which are zero for other experts, and the full softmax for load balancing."""
        probabilities = (self.proj(self.norm(x) * self.scale * x.shape[-1] ** -0.5)).softmax(-1)
        threshold = probabilities.topk(self.top_k, dim=-1).values[..., -1:]
        chosen = torch.where(probabilities >= threshold, probabilities, 0.0)
        return chosen / chosen.sum(-1, keepdim=True) * self.per_expert_scale, probabilities


class Experts(nn.Module):
    """All experts on all tokens as one wide gated MLP; small experts make this faster than gathering."""

    def __init__(self, hidden: int, intermediate: int, experts: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * intermediate, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, intermediate))

    def inner(self, x: Tensor) -> Tensor:
        """The input of each expert's down projection, [..., experts, intermediate]."""
        experts, double, hidden = self.gate_up_proj.shape
        gate, up = F.linear(x, self.gate_up_proj.view(-1, hidden)).unflatten(-1, (experts, double)).chunk(2, -1)
        return F.gelu(gate, approximate="tanh") * up

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        weighted = self.inner(x) * weights.unsqueeze(-1)
        return weighted.flatten(-2) @ self.down_proj.transpose(1, 2).reshape(-1, x.shape[-1])


class Layer(nn.Module):
    """One decoder layer: attention, a dense MLP (plus a MoE in 26B-A4B), and a per-layer embedding (in E2B)."""

    def __init__(self, config: dict[str, Any], layer_type: str, shared: bool) -> None:
        super().__init__()
        hidden, per_layer = config["hidden_size"], config["hidden_size_per_layer_input"]
        self.self_attn = Attention(config, layer_type, shared)
        self.mlp = MLP(hidden, config["intermediate_size"] * (2 if shared and config["use_double_wide_mlp"] else 1))
        self.input_layernorm = RMSNorm(hidden)
        self.post_attention_layernorm = RMSNorm(hidden)
        self.pre_feedforward_layernorm = RMSNorm(hidden)
        self.post_feedforward_layernorm = RMSNorm(hidden)
        self.register_buffer("layer_scalar", torch.ones(1))
        self.per_layer = per_layer > 0
        if self.per_layer:
            self.per_layer_input_gate = _linear(hidden, per_layer)
            self.per_layer_projection = _linear(per_layer, hidden)
            self.post_per_layer_input_norm = RMSNorm(hidden)
        self.moe = config["enable_moe_block"]
        if self.moe:
            self.router = Router(hidden, config["num_experts"], config["top_k_experts"])
            self.experts = Experts(hidden, config["moe_intermediate_size"], config["num_experts"])
            self.pre_feedforward_layernorm_2 = RMSNorm(hidden)
            self.post_feedforward_layernorm_1 = RMSNorm(hidden)
            self.post_feedforward_layernorm_2 = RMSNorm(hidden)

    def feed_forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        dense = self.mlp(self.pre_feedforward_layernorm(x))
        if not self.moe:
            return self.post_feedforward_layernorm(dense), None
        weights, probabilities = self.router(x)
        sparse = self.experts(self.pre_feedforward_layernorm_2(x), weights)
        both = self.post_feedforward_layernorm_1(dense) + self.post_feedforward_layernorm_2(sparse)
        return self.post_feedforward_layernorm(both), _imbalance(weights, probabilities)

    def forward(
        self, x: Tensor, table: Rope, mask: Tensor, given: KeysValues | None = None, own: Tensor | None = None
    ) -> tuple[Tensor, KeysValues, Tensor | None]:
        """``own``: this layer's embedding of the tokens [batch, queries, hidden_size_per_layer_input]."""
        attended, keys_values = self.self_attn(self.input_layernorm(x), table, mask, given)
        x = x + self.post_attention_layernorm(attended)
        fed, imbalance = self.feed_forward(x)
        x = x + fed
        if self.per_layer:
            gated = F.gelu(self.per_layer_input_gate(x), approximate="tanh") * own
            x = x + self.post_per_layer_input_norm(self.per_layer_projection(gated))
        return x * self.layer_scalar, keys_values, imbalance


def _imbalance(weights: Tensor, probabilities: Tensor) -> Tensor:
    """Switch-Transformer load-balancing loss: 1 if every expert gets an equal share."""
    share = (weights > 0).float().mean((0, 1))
    return (share / share.sum() * probabilities.mean((0, 1))).sum() * share.shape[0]


class Seen(NamedTuple):
    """The target's final hidden states, the last keys and values of each kind, and the MoE imbalance."""

    hidden: Tensor
    sliding: KeysValues
    full: KeysValues
    imbalance: Tensor


class Decoder(nn.Module):
    """The stack of layers with embeddings and final norm (transformers' ``model.`` prefix)."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.layer_types: list[str] = config["layer_types"]
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.first_shared = len(self.layer_types) - config["num_kv_shared_layers"]
        self.layers = nn.ModuleList(
            Layer(config, kind, index >= self.first_shared) for index, kind in enumerate(self.layer_types)
        )
        self.norm = RMSNorm(config["hidden_size"])
        self.per_layer = config["hidden_size_per_layer_input"]
        if self.per_layer:
            packed = len(self.layers) * self.per_layer
            self.embed_tokens_per_layer = nn.Embedding(config["vocab_size_per_layer_input"], packed)
            self.per_layer_model_projection = _linear(config["hidden_size"], packed)
            self.per_layer_projection_norm = RMSNorm(self.per_layer)
        parameters = config["rope_parameters"]
        self.sliding_frequencies = rope_frequencies(config["head_dim"], parameters[SLIDING])
        self.full_frequencies = rope_frequencies(config["global_head_dim"], parameters[FULL])

    def tables(self, positions: Tensor) -> dict[str, Rope]:
        device = positions.device
        return {
            SLIDING: rope(positions, self.sliding_frequencies.to(device)),
            FULL: rope(positions, self.full_frequencies.to(device)),
        }

    def own_embeddings(self, ids: Tensor, embedded: Tensor) -> Sequence[Tensor | None]:
        """For each layer its own embedding of the tokens [batch, queries, per_layer], or None if there is none."""
        if not self.per_layer:
            return [None] * len(self.layers)
        shape = (*ids.shape, len(self.layers), self.per_layer)
        of_context = self.per_layer_model_projection(embedded) * embedded.shape[-1] ** -0.5
        of_tokens = self.embed_tokens_per_layer(ids) * self.per_layer**0.5
        both = (self.per_layer_projection_norm(of_context.view(shape)) + of_tokens.view(shape)) * 2**-0.5
        return both.unbind(-2)


class Target(nn.Module):
    """The verified model: token ids in, hidden states and shared keys/values out."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.model = Decoder(config)
        self.scale = math.sqrt(config["hidden_size"])
        self.softcap = config["final_logit_softcapping"]

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.embed_tokens(ids) * self.scale

    def forward(self, ids: Tensor, positions: Tensor, masks: Masks) -> Seen:
        return self._run(ids, positions, masks, [None] * len(self.model.layers))

    def extend(self, ids: Tensor, positions: Tensor, masks: Masks, cache: list[KeysValues | None]) -> Tensor:
        """Hidden states of new tokens with a cache for every layer, which grows in place."""
        return self._run(ids, positions, masks, cache).hidden

    def _run(self, ids: Tensor, positions: Tensor, masks: Masks, cache: list[KeysValues | None]) -> Seen:
        tables, by_kind = self.model.tables(positions), {SLIDING: masks.sliding, FULL: masks.full}
        last: dict[str, KeysValues] = {}
        x, imbalances = self.embed(ids), []
        own = self.model.own_embeddings(ids, x)
        for index, (kind, layer) in enumerate(zip(self.model.layer_types, self.model.layers, strict=True)):
            given = last[kind] if layer.self_attn.shared else cache[index]
            x, last[kind], imbalance = layer(x, tables[kind], by_kind[kind], given, own[index])
            cache[index] = last[kind]
            imbalances.append(x.new_zeros(()) if imbalance is None else imbalance)
        return Seen(self.model.norm(x), last[SLIDING], last[FULL], torch.stack(imbalances).mean())

    def logits(self, hidden: Tensor) -> Tensor:
        return self.softcap * torch.tanh(F.linear(hidden, self.model.embed_tokens.weight) / self.softcap)


class OrderedHead(nn.Module):
    """E2B's ``masked_embedding``: a token counts only if its cluster is among the ``top_k`` most likely ones."""

    token_ordering: Tensor

    def __init__(self, hidden: int, vocabulary: int, clusters: int, top_k: int) -> None:
        super().__init__()
        self.centroids = _linear(hidden, clusters)
        self.top_k = top_k
        self.register_buffer("token_ordering", torch.arange(vocabulary))

    def clusters(self) -> Tensor:
        """The cluster of every token, integers [vocabulary]."""
        size = len(self.token_ordering) // self.centroids.out_features
        return torch.argsort(self.token_ordering) // size

    def mask(self, logits: Tensor, of_clusters: Tensor) -> Tensor:
        """Logits [..., vocabulary] in which tokens outside the ``top_k`` clusters are minus infinity."""
        chosen = torch.zeros_like(of_clusters, dtype=torch.bool)
        chosen.scatter_(-1, of_clusters.topk(self.top_k, dim=-1).indices, True)
        return logits.masked_fill(~chosen[..., self.clusters()], -math.inf)


class Guess(NamedTuple):
    """A draft step: logits of all tokens, the next hidden state, and logits of the clusters if the draft has some."""

    logits: Tensor
    hidden: Tensor
    of_clusters: Tensor | None


class Draft(nn.Module):
    """The MTP draft: concat(target embedding, previous hidden) in, its own logits and next hidden out."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        text, backbone = config["text_config"], config["backbone_hidden_size"]
        self.model = Decoder(text)
        self.pre_projection = _linear(2 * backbone, text["hidden_size"])
        self.post_projection = _linear(text["hidden_size"], backbone)
        self.masked_embedding = (
            OrderedHead(
                text["hidden_size"], text["vocab_size"], config["num_centroids"], config["centroid_intermediate_top_k"]
            )
            if config["use_ordered_embeddings"]
            else None
        )

    def forward(self, embedded: Tensor, hidden: Tensor, positions: Tensor, masks: Masks, seen: Seen) -> Guess:
        """One draft step for every position at once; masks forbid keys at or after the query's own token."""
        tables = self.model.tables(positions)
        masks_kv = {SLIDING: (masks.sliding, seen.sliding), FULL: (masks.full, seen.full)}
        x = self.pre_projection(torch.cat((embedded, hidden), dim=-1))
        for kind, layer in zip(self.model.layer_types, self.model.layers, strict=True):
            mask, shared = masks_kv[kind]
            x, _, _ = layer(x, tables[kind], mask, shared)
        x = self.model.norm(x)
        head = self.masked_embedding
        of_clusters = None if head is None else head.centroids(x)
        return Guess(F.linear(x, self.model.embed_tokens.weight), self.post_projection(x), of_clusters)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Small normal weights; those that add to the residual stream are smaller in deep models."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() < 2:
                continue
            fan_in = parameter.shape[-1]
            std = 0.02 if "embed_tokens" in name else fan_in**-0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
