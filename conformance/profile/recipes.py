"""A recipe of vllm-project/recipes, read as data: what it launches, as a pair and a hardware profile."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.formats import toml_tables
from conformance.profile.profile import Hardware, Pair, Served

NAMES = FIXTURES / "facts" / "recipes.toml"
MTP, SPECULATIVE = "spec_decoding", "--speculative-config"
CACHING, NO_CACHING = "--enable-prefix-caching", "--no-enable-prefix-caching"
LEFT_OUT = ("--host", "--port", "--served-model-name")  # the suite gives its own

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """What a recipe launches: target, draft, arguments and environment."""

    title: str
    variant: str
    target: str
    quantisation: str
    speculative: Mapping[str, Any]
    arguments: tuple[str, ...]  # without the draft
    environment: Mapping[str, str]


def recipe_hardware(names: Path = NAMES) -> Mapping[str, str]:
    """The names of hardware in recipes, by the names of our profiles."""
    found: dict[str, str] = toml_tables.parse(names)["hardware"]
    return found


def read_recipe(path: Path, variant: str, hardware: str, features: Sequence[str] | None = None) -> Recipe:
    """The launch of one variant on a hardware of the recipe, with MTP.

    ``features`` are those to switch on; None means all that the recipe does not leave to the user.

    Raises:
        UsageError: the file is no recipe, or has no such variant or hardware, or launches no MTP.
    """
    document = _parse(path)
    model, variants = _table(path, document, "model"), _table(path, document, "variants")
    if variant not in variants:
        raise UsageError(f'{path}: variant "{variant}" is none of {", ".join(variants)}.')
    chosen = dict(variants[variant] or {})
    if hardware not in chosen.get("supported_hardware", [hardware]):
        raise UsageError(f"{path}: variant {variant} is for {', '.join(chosen['supported_hardware'])}, not {hardware}.")
    override = (chosen.get("hardware_overrides") or {}).get(hardware) or {}
    words = [*_words(model.get("base_args")), *_words(chosen.get("extra_args")), *_words(override.get("extra_args"))]
    for name in _features(document, features):
        words += _feature_words(path, document, name, hardware)
    draft = _draft(path, document, hardware)
    settings = [model.get("base_env"), chosen.get("extra_env"), override.get("extra_env")]
    environment = {name: value for table in settings for name, value in (table or {}).items()}
    return Recipe(
        title=str(_table(path, document, "meta").get("title", path.stem)),
        variant=variant,
        target=str(chosen.get("model_id") or model["model_id"]),
        quantisation=str(chosen.get("precision", "bf16")),
        speculative=draft,
        arguments=tuple(_without(words, *LEFT_OUT)),
        environment={name: str(value) for name, value in environment.items()},
    )


def as_profile(recipe: Recipe, hardware: Hardware, known: Sequence[Pair]) -> tuple[Pair, Hardware]:
    """The pair and the hardware that start exactly what the recipe launches.

    A pair that we know keeps its name and revisions, so that its floors hold. The timed servers answer a prompt the
    second time as slowly as the first: without prefix caching.
    """
    target, draft = recipe.target, str(recipe.speculative["model"])
    k = int(recipe.speculative["num_speculative_tokens"])
    like = next((each for each in known if (each.target, each.draft, each.k) == (target, draft, k)), None)
    beside = {n: v for n, v in recipe.speculative.items() if n not in ("model", "num_speculative_tokens", "method")}
    pair = Pair(
        name=like.name if like else f"{target.rpartition('/')[2].lower()}-k{k}",
        home=".",
        target=target,
        draft=draft,
        k=k,
        quantisation=like.quantisation if like else recipe.quantisation,
        target_revision=like.target_revision if like else None,
        draft_revision=like.draft_revision if like else None,
        weights_gb=like.weights_gb if like else None,
        speculative=beside or None,
    )
    timed = (*hardware.measured_args, *[NO_CACHING] * (CACHING in recipe.arguments))
    return pair, replace(
        hardware,
        serve_args=recipe.arguments,
        measured_args=timed,
        served=replace(hardware.served, serve_args=recipe.arguments) if hardware.served else Served(recipe.arguments),
        environment={**(hardware.environment or {}), **recipe.environment},
    )


def as_toml(value: Pair | Hardware, *left_out: str) -> str:
    """The TOML of a pair or a hardware profile, without keys that follow from the file itself."""
    table = {name: each for name, each in asdict(value).items() if name not in left_out and each is not None}
    plain = {name: each for name, each in table.items() if not isinstance(each, dict)}
    lines = [f"{name} = {_toml(each)}\n" for name, each in plain.items()]
    for name, each in table.items():
        if isinstance(each, dict):
            lines += _toml_table(name, each)
    return "".join(lines)


def _toml_table(name: str, table: Mapping[str, Any]) -> list[str]:
    inner = {key: each for key, each in table.items() if isinstance(each, dict)}
    plain = {key: each for key, each in table.items() if key not in inner and each is not None}
    lines = [f"\n[{name}]\n", *(f"{json.dumps(key)} = {_toml(each)}\n" for key, each in plain.items())]
    for key, each in inner.items():
        lines += _toml_table(f"{name}.{json.dumps(key)}", each)
    return lines


def _toml(value: Any) -> str:
    """A value; JSON's strings, numbers, booleans and lists of them are TOML's too."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _parse(path: Path) -> Node:
    yaml: Any = importlib.import_module("yaml")  # without types
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{path} cannot be read as YAML ({said}); name a recipe of vllm-project/recipes.") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path} is no recipe: it holds no table; name a recipe of vllm-project/recipes.")
    return document


def _table(path: Path, document: Node, key: str) -> Node:
    found = document.get(key)
    if not isinstance(found, dict):
        raise UsageError(f'{path}: key "{key}" is missing or no table; name a recipe of vllm-project/recipes.')
    return found


def _features(document: Node, asked: Sequence[str] | None) -> list[str]:
    every = [name for name in document.get("features") or {} if name != MTP]
    left = document.get("opt_in_features") or []
    return [name for name in every if (name in asked if asked is not None else name not in left)]


def _feature_words(path: Path, document: Node, name: str, hardware: str) -> list[str]:
    feature = _table(path, document["features"], name)
    override = (feature.get("hardware_overrides") or {}).get(hardware) or {}
    return _words(override.get("args", feature.get("args")))


def _draft(path: Path, document: Node, hardware: str) -> Node:
    """The speculative configuration of the recipe's MTP.

    Raises:
        UsageError: there is none.
    """
    modes = ((document.get("features") or {}).get(MTP) or {}).get("modes") or {}
    mode = modes.get("mtp")
    if not isinstance(mode, dict):
        raise UsageError(f'{path}: feature "{MTP}" has no mode "mtp", so there is nothing to judge.')
    override = (mode.get("hardware_overrides") or {}).get(hardware) or {}
    words = _words(override.get("args", mode.get("args")))
    try:
        found = json.loads(words[words.index(SPECULATIVE) + 1])
        return {**found, "model": found["model"], "num_speculative_tokens": int(found["num_speculative_tokens"])}
    except (ValueError, IndexError, KeyError, TypeError):
        raise UsageError(f"{path}: the mode mtp has no {SPECULATIVE} with model and num_speculative_tokens.") from None


def _words(value: Any) -> list[str]:
    return [str(word) for word in value or []]


def _without(words: Sequence[str], *options: str) -> list[str]:
    """The words without these options and their values."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in options:
            kept.append(word)
        skip = word in options
    return kept
