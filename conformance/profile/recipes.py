"""A recipe of vllm-project/recipes, read as data: what it launches, as a pair and a hardware profile."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.formats import toml_tables
from conformance.profile.profile import Hardware, Pair, Served

NAMES = FIXTURES / "facts" / "recipes.toml"
MTP, SPECULATIVE = "spec_decoding", "--speculative-config"
STRATEGY = "single_node_tp"  # of the recipes' strategies, the one of one machine that serves the whole model
ARGUMENTS = ("base_args", "extra_args", "vllm_args", "args")  # keys of arguments in the tables of a recipe
SETTINGS = ("base_env", "env", "extra_env")
CACHING, NO_CACHING = "--enable-prefix-caching", "--no-enable-prefix-caching"
LEFT_OUT = ("--host", "--port", "--served-model-name", SPECULATIVE)  # the suite gives its own

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


def find_recipe(name: str, checkout: Path) -> Path:
    """The file of a recipe in a checkout of vllm-project/recipes, by MODEL or ORG/MODEL in any case.

    Raises:
        UsageError: the folder is no such checkout, or the name is that of no recipe or of several.
    """
    every = {f"{path.parent.name}/{path.stem}": path for path in sorted(checkout.glob("models/*/*.yaml"))}
    if not every:
        raise UsageError(f"{checkout} is no checkout of vllm-project/recipes: it has no models/ORG/MODEL.yaml.")
    asked = name.lower()
    found = [each for each in every if asked in (each.lower(), each.lower().partition("/")[2])]
    if len(found) == 1:
        return every[found[0]]
    if found:
        raise UsageError(f"{checkout} has {name} more than once; write one of {', '.join(found)}.")
    like = difflib.get_close_matches(asked, [each.lower() for each in every], cutoff=0.5)
    near = [each for each in every if each.lower() in like]
    raise UsageError(
        f"{checkout} has no recipe {name}; " + (f"like it: {', '.join(near)}." if near else "list models/.")
    )


def read_recipe(path: Path, variant: str, hardware: str, features: Sequence[str] | None = None) -> Recipe:
    """The launch of one variant on one machine with this hardware of the recipe, with MTP.

    The layers are those of ``src/lib/command-synthesis.js`` of vllm-project/recipes for one node with tensor
    parallelism; of two values of an option, the later one holds. ``features`` are those to switch on; None means all
    that the recipe does not leave to the user.

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
    keys = _keys(hardware)
    mtp = _feature(path, document, MTP, variant, keys)
    layers = [*_layers(document, chosen, keys)]
    layers += [_feature(path, document, name, variant, keys) for name in _features(document, features)]
    layers.append(mtp)
    words = [word for layer in layers for name in ARGUMENTS for word in _words(layer.get(name))]
    environment = {n: str(v) for layer in layers for name in SETTINGS for n, v in (layer.get(name) or {}).items()}
    return Recipe(
        title=str(_table(path, document, "meta").get("title", path.stem)),
        variant=variant,
        target=str(chosen.get("model_id") or model["model_id"]),
        quantisation=str(chosen.get("precision", "bf16")),
        speculative=_draft(path, mtp),
        arguments=tuple(_without(_last_of_each(words), *LEFT_OUT)),
        environment=environment,
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


def _keys(hardware: str) -> tuple[str, ...]:
    """The keys under which a recipe may say something about a hardware, the most special first."""
    generation: dict[str, str] = toml_tables.parse(NAMES)["generation"]
    return hardware, generation[hardware], "nvidia", "default"


def _layers(document: Node, variant: Node, keys: Sequence[str]) -> Iterator[Node]:
    """Tables with arguments and environment, without features; a later one holds."""
    exact, general = keys[:1], keys[1:3]
    strategy = (document.get("strategy_overrides") or {}).get(STRATEGY) or {}
    yield document["model"]
    yield variant
    yield _override(variant, exact)
    if (workers := _by_key(variant.get("tp"), keys) or _by_key(strategy.get("tp"), keys)) is not None:
        yield {"args": ["--tensor-parallel-size", workers]}
    yield strategy
    if replacing := _override(strategy, general):
        yield replacing
    else:
        yield _override(document, general)
        yield _override(variant, general)
    yield _override(strategy, exact)


def _by_key(value: Any, keys: Sequence[str]) -> Any:
    """A value, or that of the most special key in a table of values."""
    return next((value[key] for key in keys if key in value), None) if isinstance(value, dict) else value


def _override(table: Node, keys: Sequence[str]) -> Node:
    return _by_key(table.get("hardware_overrides") or {}, keys) or {}


def _features(document: Node, asked: Sequence[str] | None) -> list[str]:
    """The features that are on, besides MTP."""
    every = [name for name in document.get("features") or {} if name != MTP]
    left = document.get("opt_in_features") or []
    return [name for name in every if (name in asked if asked is not None else name not in left)]


def _feature(path: Path, document: Node, name: str, variant: str, keys: Sequence[str]) -> Node:
    """The arguments and the environment of a feature, or of the one of its modes that holds here."""
    features = document.get("features") or {}
    found = _table(path, features, name) if name in features else {}
    if isinstance(modes := found.get("modes"), dict):
        possible = {key: each for key, each in modes.items() if _is_possible(each or {}, variant, keys)}
        steered = _table(path, document["variants"], variant).get("default_modes") or {}
        wanted = ("mtp",) if name == MTP else (steered.get(name), found.get("default_mode"), *possible)
        found = next((possible[key] or {} for key in wanted if key in possible), {})
    if STRATEGY not in (found.get("strategies") or [STRATEGY]):
        return {}
    return {**found, **_override(found, keys)}


def _is_possible(mode: Node, variant: str, keys: Sequence[str]) -> bool:
    refused = "unsupported" in ((mode.get("hardware") or {}).get(key) for key in keys[:2])
    return not refused and variant in (mode.get("variants") or [variant])


def _draft(path: Path, feature: Node) -> Node:
    """The speculative configuration of the recipe's MTP.

    Raises:
        UsageError: there is none.
    """
    words = _words(feature.get("args"))
    try:
        found = json.loads(words[words.index(SPECULATIVE) + 1])
        draft = {**found, "model": found["model"], "num_speculative_tokens": int(found["num_speculative_tokens"])}
    except (ValueError, IndexError, KeyError, TypeError):
        said = f'feature "{MTP}" launches no MTP: it has no {SPECULATIVE} with model and num_speculative_tokens'
        raise UsageError(f"{path}: {said}; name a recipe that has.") from None
    if draft.get("method", "mtp") != "mtp":
        raise UsageError(f'{path}: feature "{MTP}" launches {draft["method"]}, not mtp; name a recipe of MTP.')
    return draft


def _words(value: Any) -> list[str]:
    return [str(word) for word in value or []]


def _last_of_each(words: Sequence[str]) -> list[str]:
    """The words without options that come again later, and without the values of those."""
    units: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not units or len(units[-1]) == 2:
            units.append([word])
        else:
            units[-1].append(word)
    last = {unit[0]: place for place, unit in enumerate(units)}
    return [word for place, unit in enumerate(units) if last[unit[0]] == place for word in unit]


def _without(words: Sequence[str], *options: str) -> list[str]:
    """The words without these options and their values."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in options:
            kept.append(word)
        skip = word in options
    return kept
