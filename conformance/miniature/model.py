"""Gemma 4's text model and its MTP draft, written for fast training on few CPU cores.

Parameter names, shapes and arithmetic are those of transformers' ``Gemma4ForCausalLM`` and
``Gemma4AssistantForCausalLM``, so state dicts can be exchanged; ``tests/miniature/test_miniature.py`` compares the
outputs. Only the order of computation differs: every expert runs on every token as one wide matrix product, and the
router's weights (zero for experts that are not chosen) mask the result; all draft positions are computed at once; and
``torch.compile`` fuses the rest. This is three times faster on few cores.
"""

from __future__ import annotations

import math
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
    """Attention with scale 1; a draft layer has queries only and reads the target's keys and values."""

    def __init__(self, config: dict[str, Any], layer_type: str, draft: bool) -> None:
        super().__init__()
        full = layer_type == FULL
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        self.head_dim = config["global_head_dim"] if full else config["head_dim"]
        self.kv_heads = config["num_global_key_value_heads"] if full else config["num_key_value_heads"]
        self.q_proj = _linear(hidden, heads * self.head_dim)
        self.q_norm = RMSNorm(self.head_dim)
        self.o_proj = _linear(heads * self.head_dim, hidden)
        self.draft = draft
        if not draft:
            self.k_proj = _linear(hidden, self.kv_heads * self.head_dim)
            self.k_norm = RMSNorm(self.head_dim)
            self.v_norm = RMSNorm(self.head_dim, with_scale=False)
            # attention_k_eq_v: full layers take the values from the key projection.
            self.v_proj = None if full else _linear(hidden, self.kv_heads * self.head_dim)

    def keys_values(self, x: Tensor, table: Rope) -> KeysValues:
        shape = (x.shape[0], x.shape[1], self.kv_heads, self.head_dim)
        raw = self.k_proj(x).view(shape).transpose(1, 2)
        values = raw if self.v_proj is None else self.v_proj(x).view(shape).transpose(1, 2)
        return rotate(self.k_norm(raw), table), self.v_norm(values)

    def forward(self, x: Tensor, table: Rope, mask: Tensor, given: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """``given``: the target's keys and values for a draft layer, the cached ones so far for a target layer."""
        batch, queries, _ = x.shape
        q = self.q_proj(x).view(batch, queries, -1, self.head_dim).transpose(1, 2)
        q = rotate(self.q_norm(q), table)
        if self.draft:
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
    """One decoder layer: attention, then the sum of a dense MLP and (in the target) a MoE."""

    def __init__(self, config: dict[str, Any], layer_type: str, draft: bool) -> None:
        super().__init__()
        hidden = config["hidden_size"]
        self.self_attn = Attention(config, layer_type, draft)
        self.mlp = MLP(hidden, config["intermediate_size"])
        self.input_layernorm = RMSNorm(hidden)
        self.post_attention_layernorm = RMSNorm(hidden)
        self.pre_feedforward_layernorm = RMSNorm(hidden)
        self.post_feedforward_layernorm = RMSNorm(hidden)
        self.register_buffer("layer_scalar", torch.ones(1))
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
        self, x: Tensor, table: Rope, mask: Tensor, given: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues, Tensor | None]:
        attended, keys_values = self.self_attn(self.input_layernorm(x), table, mask, given)
        x = x + self.post_attention_layernorm(attended)
        fed, imbalance = self.feed_forward(x)
        return (x + fed) * self.layer_scalar, keys_values, imbalance


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

    def __init__(self, config: dict[str, Any], draft: bool) -> None:
        super().__init__()
        self.layer_types: list[str] = config["layer_types"]
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config, kind, draft) for kind in self.layer_types)
        self.norm = RMSNorm(config["hidden_size"])
        parameters = config["rope_parameters"]
        self.sliding_frequencies = rope_frequencies(config["head_dim"], parameters[SLIDING])
        self.full_frequencies = rope_frequencies(config["global_head_dim"], parameters[FULL])

    def tables(self, positions: Tensor) -> dict[str, Rope]:
        device = positions.device
        return {
            SLIDING: rope(positions, self.sliding_frequencies.to(device)),
            FULL: rope(positions, self.full_frequencies.to(device)),
        }


class Target(nn.Module):
    """The verified model: token ids in, hidden states and shared keys/values out."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.model = Decoder(config, draft=False)
        self.scale = math.sqrt(config["hidden_size"])
        self.softcap = config["final_logit_softcapping"]

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.embed_tokens(ids) * self.scale

    def forward(self, ids: Tensor, positions: Tensor, masks: Masks) -> Seen:
        tables, by_kind = self.model.tables(positions), {SLIDING: masks.sliding, FULL: masks.full}
        x, last, imbalances = self.embed(ids), {}, []
        for kind, layer in zip(self.model.layer_types, self.model.layers, strict=True):
            x, last[kind], imbalance = layer(x, tables[kind], by_kind[kind])
            imbalances.append(imbalance)
        return Seen(self.model.norm(x), last[SLIDING], last[FULL], torch.stack(imbalances).mean())

    def extend(self, ids: Tensor, positions: Tensor, masks: Masks, cache: list[KeysValues | None]) -> Tensor:
        """Hidden states of new tokens with a cache for every layer, which grows in place."""
        tables, by_kind = self.model.tables(positions), {SLIDING: masks.sliding, FULL: masks.full}
        x = self.embed(ids)
        for index, (kind, layer) in enumerate(zip(self.model.layer_types, self.model.layers, strict=True)):
            x, cache[index], _ = layer(x, tables[kind], by_kind[kind], cache[index])
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.softcap * torch.tanh(F.linear(hidden, self.model.embed_tokens.weight) / self.softcap)


class Draft(nn.Module):
    """The MTP draft: concat(target embedding, previous hidden) in, its own logits and next hidden out."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        text, backbone = config["text_config"], config["backbone_hidden_size"]
        self.model = Decoder(text, draft=True)
        self.pre_projection = _linear(2 * backbone, text["hidden_size"])
        self.post_projection = _linear(text["hidden_size"], backbone)

    def forward(
        self, embedded: Tensor, hidden: Tensor, positions: Tensor, masks: Masks, seen: Seen
    ) -> tuple[Tensor, Tensor]:
        """One draft step for every position at once; masks forbid keys at or after the query's own token."""
        tables = self.model.tables(positions)
        masks_kv = {SLIDING: (masks.sliding, seen.sliding), FULL: (masks.full, seen.full)}
        x = self.pre_projection(torch.cat((embedded, hidden), dim=-1))
        for kind, layer in zip(self.model.layer_types, self.model.layers, strict=True):
            mask, shared = masks_kv[kind]
            x, _, _ = layer(x, tables[kind], mask, shared)
        x = self.model.norm(x)
        return F.linear(x, self.model.embed_tokens.weight), self.post_projection(x)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Small normal weights; those that add to the residual stream are smaller in deep models."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() < 2:
                continue
            fan_in = parameter.shape[-1]
            std = 0.02 if "embed_tokens" in name else fan_in**-0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
