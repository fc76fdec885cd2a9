"""Both checkpoints, compared with the facts about the published checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Self

from conformance.checkpoints import quantisation
from conformance.checkpoints.headers import TOKEN_ORDER
from conformance.checkpoints.pairing import Keys, Missing, attention_axes, unused_tensors
from conformance.errors import ObservationError, Unsupported
from conformance.profile.facts import GENERATIONS, Facts, text_of

FOREIGN = ("k_proj", "v_proj", "k_norm", "v_norm", "lm_head")
# The form depends on the version of transformers: one value per kind of layer, or one per layer.
BY_LAYER = ("global_head_dim", "num_global_key_value_heads")
ELSEWHERE = ("dtype", "pad_token_id", "bos_token_id", "eos_token_id")  # their place in the config differs as well


@dataclass(frozen=True)
class Published:
    """The ``checkpoint`` observation, and the facts about published pairs and the miniature."""

    target: Mapping[str, Any]
    draft: Mapping[str, Any]
    facts: Facts
    source: str = "observations/checkpoint.json"

    @classmethod
    def of(cls, document: Mapping[str, Any], facts: Facts) -> Self:
        """Read the observation."""
        return cls(document["target"], document["draft"], facts)

    def size_of_draft(self) -> str:
        """The published size of the draft.

        Raises:
            Unsupported: the draft has no published size.
        """
        return _known("draft", self.facts.known_draft(self.draft["config"]))

    def size_of_target(self) -> str:
        """The published size of the target.

        Raises:
            Unsupported: the target has no published size.
        """
        return _known("target", self.facts.known_target(self.target["config"]))

    # --- the draft

    def tensors_of_draft(self) -> int:
        """The number of tensors in the draft's file."""
        return len(self.draft["tensors"])

    def foreign_tensors(self) -> list[str]:
        """A sentence for each tensor of the draft that is a key, a value or a head of its own."""
        return [f"the draft holds {name}" for name in self.draft["tensors"] if set(name.split(".")) & set(FOREIGN)]

    def token_order(self) -> list[str]:
        """Why the draft's token ordering is no permutation of the vocabulary; empty if it is, or if there is none."""
        order, vocabulary = self.draft["token_order"], text_of(self.draft["config"]).get("vocab_size")
        if order is None:
            return []
        want = {"tokens": vocabulary, "distinct": vocabulary, "smallest": 0, "largest": (vocabulary or 0) - 1}
        return [
            f"{TOKEN_ORDER}: {key} is {order[key]} where {n} is expected" for key, n in want.items() if order[key] != n
        ]

    def draft_layout(self) -> dict[str, Any]:
        """The dtype and shape of every tensor, the totals, and the config values that the facts name.

        Raises:
            Unsupported: the draft is quantised, or has no published size.
        """
        if self.draft["config"].get("quantization_config"):
            raise Unsupported("The draft is quantised, but the published drafts are not.")
        held = _held(self.draft)
        if not held:
            return {}
        names = self.facts.draft(self.size_of_draft()).config
        floats = sum(prod(shape) for dtype, shape in held.values() if dtype != "I64")
        return _layout(held) | {"parameters": floats} | self._config("draft", self.draft["config"], names)

    def published_draft_layout(self) -> dict[str, Any]:
        """The same values of the published draft.

        Raises:
            Unsupported: the draft has no published size.
        """
        fact = self.facts.draft(self.size_of_draft())
        totals = {"parameters": fact.totals.parameters}
        return _layout(fact.tensors) | totals | self._config("draft", fact.config, fact.config)

    # --- the target

    def target_values(self) -> dict[str, Any]:
        """The config values that the facts name, and the totals that are known for this quantisation.

        Raises:
            Unsupported: the target has no published size.
        """
        held = _held(self.target)
        if not held:
            return {}
        fact, values = self.facts.target(self.size_of_target()), self._text("target", self.target["config"])
        values["config.json architectures"] = self.target["config"].get("architectures")
        method = quantisation.method_of(self.target["config"])
        if method is None:
            sized = [prod(shape) for _, shape in held.values() if shape] + list(self._unused_and_absent().values())
            values["parameters"] = sum(sized)
            if fact.flag == "certain":
                values["tensors"] = len(sized)
        elif method in fact.quantised_linears:
            values["quantised linears"] = quantisation.quantised_linears(held)
        return values

    def published_target_values(self) -> dict[str, Any]:
        """The same values of the published target.

        Raises:
            Unsupported: the target has no published size.
        """
        fact = self.facts.target(self.size_of_target())
        values = self._text("target", fact.text_config) | {"config.json architectures": [fact.architecture]}
        method = quantisation.method_of(self.target["config"])
        if method is None:
            values["parameters"] = fact.totals.parameters
            if fact.flag == "certain":
                values["tensors"] = fact.totals.tensors
        elif method in fact.quantised_linears:
            values["quantised linears"] = fact.quantised_linears[method]
        return values

    def absent_tensors(self) -> str:
        """How many tensors the target's file lacks that no model uses, as a note; empty for none.

        Raises:
            ObservationError: the config does not describe its layers.
        """
        absent = len(self._unused_and_absent())
        why = "the keys and values of layers that read those of earlier ones, which no model uses"
        return f"{absent} tensors are absent: {why}" if absent else ""

    def quantisation(self) -> list[str]:
        """A sentence for each contradiction between the target's quantisation settings and its tensors."""
        return quantisation.objections(self.target["config"], self.target["hf_quant_config"], _held(self.target))

    def integers(self) -> str:
        """The size of packed integers and whose targets have such weights, as a note; empty for other weights."""
        return quantisation.packed_as(self.target["config"])

    def tensors_of_target(self) -> int:
        """The number of tensors in the target's files."""
        return len(self.target["tensors"])

    # --- tokens and chat

    def special_tokens(self) -> dict[str, int | str]:
        """The ids of both checkpoints' special tokens that the facts name; the draft's only if it has a tokenizer.

        Raises:
            Unsupported: the target has no published size.
        """
        found = {f"target: {name}": number for name, number in self._tokens(self.target).items()}
        return found | {f"draft: {name}": number for name, number in self._tokens(self.draft).items()}

    def published_tokens(self) -> dict[str, int]:
        """The same ids in the published checkpoints.

        Raises:
            Unsupported: the target has no published size.
        """
        known = self.facts.tokens.of(self.size_of_target())
        roles = ("target", "draft") if self.draft["special_tokens"] is not None else ("target",)
        return {f"{role}: {name}": number for role in roles for name, number in known.items()}

    def endings(self) -> dict[str, Any]:
        """The stop tokens and suppressed tokens of generation_config.json, sorted.

        Raises:
            Unsupported: the target has no published size.
        """
        return self._endings(self.target["generation_config"] or {})

    def published_endings(self) -> dict[str, Any]:
        """The same tokens of an instruction-tuned target; a base model stops at ``<eos>`` alone.

        Raises:
            Unsupported: the target has no published size.
        """
        tokens = self.facts.tokens
        ids = tokens.of(self.size_of_target())
        stop, suppress = ([ids[name] for name in names] for names in (tokens.stop, tokens.suppress))
        return self._endings({"eos_token_id": stop, "suppress_tokens": suppress})

    def renders(self) -> dict[str, str]:
        """The golden conversations as the target's chat template renders them.

        Raises:
            ObservationError: there are no renders.
        """
        template = self.target["chat_template"]
        if template is None:
            return {"the chat template": "missing, as in a base model"}
        if not template["renders"]:
            raise ObservationError(f"{self.source}: nothing to compare")
        return {id: template["renders"].get(id, "not rendered") for id in self.goldens()}

    def goldens(self) -> dict[str, str]:
        """The golden renders of the template generation that fits best."""
        return self._generation()[1]

    def generation(self) -> str:
        """The name of that generation, and where the same template text is known from, as a note."""
        digest = (self.target["chat_template"] or {}).get("sha256", "")
        return f"{self._generation()[0]}, SHA-256 {digest[:16]}… ({self.facts.chat_template.sha256.get(digest, 'new')})"

    def _generation(self) -> tuple[str, dict[str, str]]:
        template = self.target["chat_template"]
        if template is None:
            return "none", {"the chat template": "one of Gemma 4's"}
        goldens, size = self.facts.chat_template, self.facts.known_target(self.target["config"])
        thoughts = (True, False) if size is None else (size in goldens.empty_thought,)
        known = [(name, goldens.goldens(name, thought)) for name in reversed(GENERATIONS) for thought in thoughts]
        # The newest generation with the fewest contradictions.
        return min(known, key=lambda each: sum(template["renders"].get(id) != text for id, text in each[1].items()))

    def _unused_and_absent(self) -> dict[str, int]:
        """The numbers of each tensor that an unquantised target's file lacks and that no model uses.

        Raises:
            ObservationError: the config does not describe its layers.
        """
        if self.target["config"].get("quantization_config"):
            return {}  # its tensors have other names
        try:
            unused = unused_tensors(self.target["config"])
        except Missing as missing:
            raise ObservationError(f"the target's config.json does not describe its layers: {missing}") from None
        return {name: size for name, size in unused.items() if name not in self.target["tensors"]}

    def _tokens(self, checkpoint: Mapping[str, Any]) -> dict[str, int | str]:
        tokens = checkpoint["special_tokens"]
        if tokens is None:
            return {} if checkpoint is self.draft else {"tokenizer.json": "missing"}
        return {name: tokens[name] for name in self.facts.tokens.of(self.size_of_target()) if name in tokens}

    def _endings(self, generation: Mapping[str, Any]) -> dict[str, Any]:
        stop, have = generation.get("eos_token_id"), self.target["generation_config"] or {}
        values: dict[str, Any] = {"eos_token_id": sorted(stop) if isinstance(stop, list) else stop}
        if self.size_of_target() in self.facts.tokens.suppress_certain or have.get("suppress_tokens"):
            values["suppress_tokens"] = sorted(generation.get("suppress_tokens") or [])
        return values

    def _config(self, role: str, config: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
        top = _named(config, names, skip=("text_config",))
        return {f"config.json {name}": value for name, value in top.items()} | self._text(role, config)

    def _text(self, role: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The text model's values that the facts name, with the heads of its last layer, which has full attention.

        Raises:
            ObservationError: the config does not describe the heads of the last layer.
        """
        size = self.size_of_draft() if role == "draft" else self.size_of_target()
        facts = self.facts.draft(size).config["text_config"] if role == "draft" else self.facts.target(size).text_config
        text = text_of(config)
        values = _named(text, facts, skip=(*BY_LAYER, *ELSEWHERE))
        try:
            axes = attention_axes(Keys(text), len(text["layer_types"]) - 1)
        except (Missing, KeyError, IndexError) as missing:
            raise ObservationError(
                f"the {role}'s config.json does not describe the heads of its last layer: {missing}"
            ) from None
        last = {"head size of the last layer": axes[0].size, "key/value heads of the last layer": axes[1].size}
        return {f"text_config {name}": value for name, value in (values | last).items()}


def _known(role: str, size: str | None) -> str:
    if size is None:
        raise Unsupported(f"The {role} is none of the published Gemma 4 sizes, so there is no reference for it.")
    return size


def _held(checkpoint: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (row["dtype"], tuple(row["shape"])) for name, row in checkpoint["tensors"].items()}


def _layout(held: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    return {name: f"{dtype} {list(shape)}" for name, (dtype, shape) in held.items()}


def _named(table: Mapping[str, Any], names: Mapping[str, Any], skip: tuple[str, ...]) -> dict[str, Any]:
    return {name: table.get(name) for name in names if name not in skip}
