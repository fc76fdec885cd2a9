"""A profile: hardware × pair × level, read from fixtures/ and checked; the only configuration object."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields, replace
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Final, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic.dataclasses import dataclass

from conformance import FIXTURES
from conformance.errors import Unsupported, UsageError
from conformance.formats import toml_tables
from conformance.formats.json_files import parse_json
from conformance.formats.secrets import is_secret
from conformance.formats.toml_tables import STRICT

LEVELS: Final = ("static", "smoke", "qualify", "soak")
# Whose checks a level runs beside its own. A soak holds a load on a server that smoke has looked into; what qualify
# measures it does not measure again, so that its length is what was asked for.
INCLUDED: Final[Mapping[str, tuple[str, ...]]] = {
    "static": (),
    "smoke": ("static",),
    "qualify": ("static", "smoke"),
    "soak": ("static", "smoke"),
}
IN_A_ROW: Final = 3  # requests one after another, as in the published figures
LONGEST_SOAK: Final = 7 * 24 * 60  # minutes
MOST_WINDOWS: Final = 360  # of a soak
UNLOCKED: Final = "unlocked"  # in place of an environment's name: what is installed is held against no lock


@dataclass(frozen=True, config=STRICT)
class Bounds:
    """How long to wait, in seconds, before calling it a failure."""

    load_seconds: float  # from the start of the process to the first generated token
    silence_seconds: float  # without a new byte in the log, while loading
    request_seconds: float  # for one request
    stop_seconds: float  # from SIGTERM to SIGKILL


@dataclass(frozen=True, config=STRICT)
class Hardware:
    """One TOML of fixtures/hardware."""

    name: str
    memory: Literal["unified", "discrete", "host"]
    two_servers: bool  # whether the server with MTP and the one without fit into memory together
    locked_environment: str  # the folder of envs/ whose lock must be installed, or UNLOCKED
    bounds: Bounds
    calibration: Literal["synthetic", "coins"] = "synthetic"  # who knows the true rates: vLLM itself, or the probe
    memory_gb: float | None = None  # nominal, of the GPU, or of what it shares with the CPU
    sm: int | None = None  # compute capability times ten, 121 for GB10; none on a CPU
    serve_args: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    # How k is swept: by the probe in one server more (beside the two, where they fit together), or by a server for each
    # k, which is right where CUDA graphs are replayed, since they are made for one length.
    sweep: Literal["probe", "restart"] = "restart"
    moe_backend: Mapping[str, Mapping[str, str]] | None = None  # quantisation -> vLLM version specifier -> backend
    attention_backend: Mapping[str, str] | None = None  # vLLM version specifier -> backend of every attention layer
    unsupported_moe_backend: str | None = None  # one that this hardware must refuse by name
    by_name_only: bool = False  # whether it is a variant that is never taken for the detected GPU
    third_server: bool = False  # whether one more fits into the memory of a GPU beside the two

    @property
    def roomy(self) -> bool:
        """Whether one server more fits beside the others."""
        return self.two_servers and (self.memory == "host" or self.third_server)

    @property
    def starts_together(self) -> bool:
        """Whether servers may start at the same time.

        vLLM measures the free memory of a GPU while it starts, and gives up where somebody else's share moves, unless
        it is told how much its cache may take.
        """
        return self.memory == "host" or "--kv-cache-memory-bytes" in self.serve_args

    def expected_moe_backend(self, quantisation: str, vllm: str) -> str:
        """The MoE backend that this vLLM version should choose here; Unsupported where the profile does not say."""
        if backend := _of_version((self.moe_backend or {}).get(quantisation, {}), vllm):
            return backend
        raise Unsupported(f"Hardware {self.name} names no MoE backend for {quantisation} on vLLM {vllm}.")

    def expected_attention_backend(self, vllm: str) -> str:
        """What target and draft should attend by in this vLLM version; Unsupported where the profile does not say."""
        if backend := _of_version(self.attention_backend or {}, vllm):
            return backend
        raise Unsupported(f"Hardware {self.name} names no attention backend on vLLM {vllm}.")


@dataclass(frozen=True, config=STRICT)
class Pair:
    """One TOML of fixtures/models: a target with its draft.

    ``target`` and ``draft`` are folders (starting with "." or "/", relative to ``home``) or Hub repositories.
    """

    name: str
    home: str
    target: str
    draft: str
    k: int
    quantisation: str
    target_revision: str | None = None
    draft_revision: str | None = None
    weights_gb: float | None = None  # of both checkpoints, as they are stored
    serve_args: tuple[str, ...] = ()
    speculative: Mapping[str, Any] | None = None  # more settings of vLLM's speculative decoding


@dataclass(frozen=True, config=STRICT)
class Sizes:
    """How much a level observes: one table of fixtures/levels.toml."""

    mixed_prompts: int = 0
    tool_prompts: int = 0
    calling_cases: int = 0  # chats of each group that should end in tool calls
    text_cases: int = 0  # chats of each other group
    parser_examples: int = 0  # of each property
    moe_layers: int = 0  # whose experts are computed again in float32, spread over the target
    rounds: Mapping[str, int] = field(default_factory=dict)  # by concurrency: groups of prompts that are timed
    spare_rounds: Mapping[str, int] = field(default_factory=dict)  # more of them, while half_width is not reached
    half_width: float = 0.0  # of a speedup, as a share of it, at which it is known well enough
    warm_up_rounds: int = 0
    calibration_trials: int = 0  # of each vector of known rates
    calibration_prompts: int = 0  # of each trial
    sampling_prompts: int = 0
    sampling_seeds: int = 0  # samples of each of these prompts on each server
    sweep_prompts: int = 0
    sweep_tokens: int = 0  # of an answer, at most
    sweep_longest_draft: int = 0  # k is swept from 1 up to it
    bench_prompts: int = 0
    bench_tokens: int = 0  # of every answer
    bench_at_once: int = 0
    bench_rounds: int = 0  # at least; each measures once with our client and once with vllm bench serve
    bench_most_rounds: int = 0
    bench_half_width: float = 0.0  # of the ratio of both speeds, at which it is known well enough
    again_every: int = 0  # every nth round times the server without MTP twice, for the A/A comparison; 0 = never
    longest_answer: int = 0  # tokens of a timed answer at most; 0 = as many as the prompt's row says
    looks: int = 1  # in how many parts a load is measured; what the first settles needs no other
    tie_prompts: int = 0  # whose tokens are scored again in other batches, to learn how far a score moves
    soak_minutes: float = 0.0  # for which a load is held; --minutes says otherwise
    soak_at_once: int = 0  # requests
    soak_prompts: int = 0  # that are asked in turn: few, so that every window has about the same of each category
    soak_window_seconds: float = 0.0

    def by_concurrency(self) -> dict[int, int]:
        """``rounds`` with its keys as numbers, the smallest first."""
        return dict(sorted((int(concurrency), rounds) for concurrency, rounds in self.rounds.items()))

    @staticmethod
    def requests_of(concurrency: int) -> int:
        """How many prompts a round has at this concurrency."""
        return IN_A_ROW if concurrency == 1 else concurrency

    def spare(self, concurrency: int) -> int:
        """``spare_rounds`` of one concurrency."""
        return self.spare_rounds.get(str(concurrency), 0)


@plain_dataclass(frozen=True)
class Profile:
    """What is observed, on what, and how much of it."""

    hardware: Hardware
    pair: Pair
    level: str
    sizes: Sizes
    prompts: Path = FIXTURES / "prompts"

    @property
    def workers(self) -> int:
        """How many of them share a server's layers among each other (tensor parallelism)."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
        found, _ = parser.parse_known_args([*self.pair.serve_args, *self.hardware.serve_args])
        return int(found.tensor_parallel_size)

    @property
    def has_servers(self) -> bool:
        """Whether this level observes running servers at all."""
        return self.level != "static"


@dataclass(frozen=True, config=STRICT)
class _Resolved:
    """A profile as evidence keeps it; where its prompts lie is the reader's business."""

    hardware: Hardware
    pair: Pair
    level: str
    sizes: Sizes


def profile_to_json(profile: Profile) -> dict[str, Any]:
    """The profile as JSON."""
    return {name: value for name, value in asdict(profile).items() if name != "prompts"}


def read_profile(path: Path, level: str, fixtures: Path = FIXTURES) -> Profile:
    """The profile that evidence keeps, at this level; raises UsageError naming file, key and mend."""
    try:
        table = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}); the evidence is damaged, record it anew.") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path} is no JSON object; the evidence is damaged, record it anew.")
    if isinstance(table.get("sizes"), dict):  # how much was observed is no matter of what it means today
        known = {each.name for each in fields(Sizes)}
        table["sizes"] = {name: size for name, size in table["sizes"].items() if name in known}
    found = toml_tables.convert(path, table, _Resolved)
    profile = Profile(found.hardware, found.pair, found.level, found.sizes, fixtures / "prompts")
    if level == profile.level:
        return profile
    return replace(profile, level=level, sizes=_sizes(fixtures / "levels.toml", level))


def load_profile(hardware: str, pair: str, level: str, fixtures: Path = FIXTURES) -> Profile:
    """The profile of that name; ``hardware`` and ``pair`` may also be paths of TOML files outside fixtures/.

    Raises UsageError naming file, key and mend.
    """
    if level not in LEVELS:
        hint = toml_tables.nearest(level, LEVELS)
        raise UsageError(f'level "{level}" is unknown; choose one of {", ".join(LEVELS)}.{hint}')
    return Profile(
        hardware=load_hardware(_find(fixtures / "hardware", "hardware", hardware)),
        pair=load_pair(_find(fixtures / "models", "pair", pair)),
        level=level,
        sizes=_sizes(fixtures / "levels.toml", level),
        prompts=fixtures / "prompts",
    )


def with_soak_minutes(profile: Profile, minutes: float) -> Profile:
    """The profile of a soak of so many minutes; UsageError for another level, and for no such time."""
    if profile.level != "soak":
        raise UsageError(
            f"--minutes is how long a soak lasts: leave it out at level {profile.level}, or add --level soak."
        )
    if not 0 < minutes <= LONGEST_SOAK:
        raise UsageError(f"--minutes {minutes:g} is no length of a soak; write one such as 30, at most {LONGEST_SOAK}.")
    return replace(profile, sizes=replace(profile.sizes, soak_minutes=minutes))


def soak_windows(sizes: Sizes) -> int:
    """How many windows a soak is seen in; those of a long one are longer."""
    return max(1, min(MOST_WINDOWS, round(60 * sizes.soak_minutes / sizes.soak_window_seconds)))


def every_hardware(fixtures: Path = FIXTURES) -> list[Hardware]:
    """All that there are, by name."""
    return [load_hardware(path) for path in sorted((fixtures / "hardware").glob("*.toml"))]


def _of_version(by_version: Mapping[str, str], vllm: str) -> str | None:
    """The value of the first specifier that holds this version."""
    fitting = (
        value for versions, value in by_version.items() if SpecifierSet(versions).contains(vllm, prereleases=True)
    )
    return next(fitting, None)


def _must_be_specifiers(path: Path, key: str, by_version: Mapping[str, str]) -> None:
    for versions in by_version:
        try:
            SpecifierSet(versions)
        except InvalidSpecifier:
            sentence = f'key {key}."{versions}" is no version specifier; write one such as ">=0.32".'
            raise UsageError(f"{path}: {sentence}") from None


def load_hardware(path: Path) -> Hardware:
    """One hardware file."""
    hardware = toml_tables.read(path, Hardware, name=path.stem)
    by_version = {f"moe_backend.{name}": table for name, table in (hardware.moe_backend or {}).items()}
    for key, table in {**by_version, "attention_backend": hardware.attention_backend or {}}.items():
        _must_be_specifiers(path, key, table)
    for name in hardware.environment or {}:
        if is_secret(name):
            raise _secret(path, "environment", name)
    _must_hold_no_secret(path, hardware.serve_args)
    return hardware


def load_pair(path: Path) -> Pair:
    """One pair file."""
    pair = toml_tables.read(path, Pair, name=path.stem, home=str(path.parent))
    if pair.k < 1:
        raise UsageError(f'{path}: key "k" is {pair.k}; it must be at least 1, the number of drafted tokens a step.')
    _must_hold_no_secret(path, pair.serve_args)
    return pair


def _must_hold_no_secret(path: Path, serve_args: Sequence[str]) -> None:
    for word in serve_args:
        if word.startswith("--") and is_secret(word):
            raise _secret(path, "serve_args", word.partition("=")[0])


def _secret(path: Path, key: str, name: str) -> UsageError:
    return UsageError(
        f'{path}: key "{key}" has {name}, a secret, and profiles are kept in evidence; take it out, and set it in the '
        "environment of the command where it is needed."
    )


def _sizes(path: Path, level: str) -> Sizes:
    table = toml_tables.parse(path)
    for name in LEVELS:
        if name not in table:
            raise UsageError(f'{path}: table "{name}" is missing; add it.')
    sizes = toml_tables.convert(path, table[level], Sizes, where=level)
    for concurrency in sizes.rounds:
        if not concurrency.isdecimal() or int(concurrency) < 1:
            key = f"{level}.rounds.{concurrency}"
            raise UsageError(f'{path}: key "{key}" is no concurrency; write how many requests at once, such as 8.')
    return sizes


def _find(folder: Path, kind: str, name: str) -> Path:
    if name.endswith(".toml"):
        try:
            return Path(name).resolve()
        except (OSError, RuntimeError) as error:  # a link to itself is the one or the other, by Python's version
            raise UsageError(f"{name} cannot be found ({error}); name another file.") from None
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        hint = toml_tables.nearest(name, known)
        raise UsageError(f'{kind} "{name}" is unknown; {folder} has {", ".join(known) or "none"}.{hint}')
    return folder / f"{name}.toml"
