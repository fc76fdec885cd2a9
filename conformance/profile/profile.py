"""A profile: hardware × pair × level, read from fixtures/ and checked; the only configuration object."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields, replace
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import Field
from pydantic.dataclasses import dataclass

from conformance import FIXTURES
from conformance.errors import Unsupported, UsageError
from conformance.formats import toml_tables
from conformance.formats.json_files import parse_json
from conformance.formats.secrets import is_secret
from conformance.formats.toml_tables import STRICT

LEVELS: Final = ("static", "smoke", "qualify", "soak", "k-by-batch")
# The levels whose checks a level also runs. A soak holds a load on a server that smoke has inspected. It does not
# repeat the measurements of qualify, so that it takes as long as --minutes says. Nor does the level k-by-batch.
INCLUDED: Final[Mapping[str, tuple[str, ...]]] = {
    "static": (),
    "smoke": ("static",),
    "qualify": ("static", "smoke"),
    "soak": ("static", "smoke"),
    "k-by-batch": ("static", "smoke"),
}
IN_A_ROW: Final = 3  # requests one after another, as for the published figures
LONGEST_SOAK: Final = 7 * 24 * 60  # minutes
MOST_WINDOWS: Final = 360  # of a soak
UTILISATION: Final = "--gpu-memory-utilization"
UNLOCKED: Final = "unlocked"  # instead of an environment's name: installed versions are compared with no lock


Seconds = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class Bounds:
    """How long to wait before it counts as a failure, in seconds."""

    load_seconds: Seconds  # from the start of the process to the first generated token
    silence_seconds: Seconds  # without a new line in the log, while loading
    request_seconds: Seconds  # for one request
    stop_seconds: Seconds  # from SIGTERM to SIGKILL


@dataclass(frozen=True, config=STRICT)
class Served:
    """The configuration that people serve, where it differs from the measured one."""

    # They follow the profile's serve_args. Of two values of one option, vLLM takes the last.
    serve_args: tuple[str, ...]
    needs_gb: float = 0.0  # free memory of the host below which the measured servers are stopped first
    small_cache: bool = False  # whether the requests of the checks fill the cache, so that vLLM evicts and preempts
    combinations: tuple[str, ...] = ()  # features for each of which two more servers are started, if vLLM accepts it


@dataclass(frozen=True, config=STRICT)
class Hardware:
    """One TOML of fixtures/hardware."""

    name: str
    memory: Literal["unified", "discrete", "host"]
    two_servers: bool  # whether the servers with and without MTP fit into memory together
    locked_environment: str  # the folder of envs/ whose lock must be installed, or UNLOCKED
    bounds: Bounds
    calibration: Literal["synthetic", "coins"] = "synthetic"  # who decides at known rates: vLLM itself, or the probe
    memory_gb: float | None = None  # nominal memory of the GPU, or the memory that it shares with the CPU
    sm: int | None = None  # compute capability times ten, 121 for GB10; none on a CPU
    serve_args: tuple[str, ...] = ()  # of every server
    measured_args: tuple[str, ...] = ()  # of the servers that are compared, so that they differ in nothing but MTP
    environment: Mapping[str, str] | None = None
    # How k is swept: by the probe in one more server (at the same time as the two, if they fit), or by one server for
    # each k. The second is right with CUDA graphs, because a graph is captured for one draft length.
    sweep: Literal["probe", "restart"] = "restart"
    moe_backend: Mapping[str, Mapping[str, str]] | None = None  # quantisation -> vLLM version specifier -> backend
    attention_backend: Mapping[str, str] | None = None  # vLLM version specifier -> backend of every attention layer
    unsupported_moe_backend: str | None = None  # a backend that vLLM must refuse here if it is requested by name
    by_name_only: bool = False  # whether only --hardware selects it, never the detected GPU
    third_server: bool = False  # whether a third server fits into the memory of a GPU
    served: Served | None = None  # a profile without it is not tested as people serve it

    @property
    def roomy(self) -> bool:
        """Whether a third server fits into memory."""
        return self.two_servers and (self.memory == "host" or self.third_server)

    @property
    def starts_together(self) -> bool:
        """Whether servers may start at the same time.

        While vLLM starts, it measures the free memory of the GPU and stops if other processes change it, unless an
        option sets the size of its cache.
        """
        return self.memory == "host" or "--kv-cache-memory-bytes" in self.serve_args

    @property
    def measured(self) -> tuple[str, ...]:
        """The arguments of the servers whose speed has floors."""
        return (*self.serve_args, *self.measured_args)

    @property
    def memory_share(self) -> float:
        """The share of the GPU's memory that vLLM may use (--gpu-memory-utilization); 1 if no option says so."""
        words = self.serve_args
        return float(words[words.index(UTILISATION) + 1]) if UTILISATION in words else 1.0

    @property
    def loads_beside(self) -> bool:
        """Whether one more server can load while others answer: on a GPU with room, where the CPU has cores for it."""
        return self.sm is not None and self.roomy and self.starts_together

    def as_served(self) -> Served:
        """The configuration that people serve.

        Raises:
            Unsupported: the profile has none.
        """
        if self.served is None:
            raise Unsupported(f"Hardware {self.name} has no table [served], the configuration that people serve.")
        return self.served

    def expected_moe_backend(self, quantisation: str, vllm: str) -> str:
        """The MoE backend that this vLLM version should choose here.

        Raises:
            Unsupported: the profile names none.
        """
        if backend := _of_version((self.moe_backend or {}).get(quantisation, {}), vllm):
            return backend
        raise Unsupported(f"Hardware {self.name} names no MoE backend for {quantisation} on vLLM {vllm}.")

    def expected_attention_backend(self, vllm: str) -> str:
        """The attention backend that target and draft should have in this vLLM version.

        Raises:
            Unsupported: the profile names none.
        """
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
    weights_gb: float | None = None  # size of both checkpoints on disk
    serve_args: tuple[str, ...] = ()
    speculative: Mapping[str, Any] | None = None  # additional settings for vLLM's speculative decoding


@dataclass(frozen=True, config=STRICT)
class Sizes:
    """How much a level observes: one table of fixtures/levels.toml."""

    mixed_prompts: int = 0
    tool_prompts: int = 0
    calling_cases: int = 0  # chats of each group that should end in tool calls
    text_cases: int = 0  # chats of each other group
    parser_examples: int = 0  # of each property
    moe_layers: int = 0  # layers whose experts are computed again in float32, spread over the target
    rounds: Mapping[str, int] = field(default_factory=dict)  # by concurrency: groups of prompts that are timed
    spare_rounds: Mapping[str, int] = field(default_factory=dict)  # additional rounds while half_width is not reached
    # More spare rounds while both servers run, half_width is not reached and more_seconds have not passed: on a fast
    # machine a round is short, so time and not their number is their limit.
    more_rounds: Mapping[str, int] = field(default_factory=dict)
    more_seconds: float = 0.0  # of spare rounds, at each concurrency
    half_width: float = 0.0  # of a speedup, relative to it, at which measuring stops
    warm_up_rounds: int = 0
    warm_up_seconds: float = 0.0  # a warm-up round is repeated for so long while it still gets faster
    still: float = 0.0  # the share by which a warm-up round may be faster than the one before and count as still
    calibration_trials: int = 0  # of each vector of known rates
    calibration_prompts: int = 0  # of each trial
    sampling_prompts: int = 0
    sampling_seeds: int = 0  # samples of each of these prompts on each server
    sweep_prompts: int = 0
    sweep_tokens: int = 0  # of an answer, at most
    sweep_seconds: float = 0.0  # after which no further server is started for another k; 0 = all are
    sweep_longest_draft: int = 0  # k is swept from 1 up to it
    batch_at_once: tuple[int, ...] = ()  # numbers of requests at once, at each of which every k is timed
    batch_rounds: int = 0  # of each of them
    batch_tokens: int = 0  # of every answer
    bench_prompts: int = 0
    bench_seconds: float = 0.0  # the prompts are repeated until a run takes so long; 0 = asked once
    bench_tokens: int = 0  # of every answer
    bench_at_once: int = 0
    bench_rounds: int = 0  # at least; each measures once with the suite's client and once with vllm bench serve
    bench_most_rounds: int = 0
    bench_half_width: float = 0.0  # of the ratio of both speeds, at which measuring stops
    again_every: int = 0  # every nth round times the server without MTP twice, for the A/A comparison; 0 = never
    longest_answer: int = 0  # most tokens of a timed answer; 0 = as many as the prompt's row says
    graph_tokens: int = 0  # of every answer while 1 … max_num_seqs requests run at once
    graph_passes: int = 0  # over all these numbers of requests
    graph_drop: float = 0.0  # share of tokens/s that one more request costs, from which both numbers are asked again
    graph_more_passes: int = 0  # over such numbers, at most
    served_prompts: int = 0  # the first of the timed prompts, asked again of the servers as people serve them
    served_tokens: int = 0  # of each of these answers, at most
    looks: int = 1  # the number of parts of a load; later looks are only made if earlier ones do not decide
    questions_at_once: int = 0  # of those with checkable answers
    tie_prompts: int = 0  # prompts whose tokens are scored again in other batches, to learn how much scores vary
    soak_minutes: float = 0.0  # how long the load is held; --minutes replaces it
    soak_at_once: int = 0  # requests
    soak_prompts: int = 0  # asked in turn; they are few, so that all windows have about the same mix of categories
    soak_window_seconds: float = 0.0
    energy_windows: int = 0  # of a load on each server, of which the energy is measured
    energy_seconds: float = 0.0  # of each of them

    def by_concurrency(self) -> dict[int, int]:
        """``rounds`` with its keys as numbers, the smallest first."""
        return dict(sorted((int(concurrency), rounds) for concurrency, rounds in self.rounds.items()))

    @staticmethod
    def requests_of(concurrency: int) -> int:
        """The number of prompts in a round at this concurrency."""
        return IN_A_ROW if concurrency == 1 else concurrency

    def spare(self, concurrency: int) -> int:
        """``spare_rounds`` of one concurrency."""
        return self.spare_rounds.get(str(concurrency), 0)

    def more(self, concurrency: int) -> int:
        """``more_rounds`` of one concurrency."""
        return self.more_rounds.get(str(concurrency), 0)


@plain_dataclass(frozen=True)
class Profile:
    """What is observed, on which hardware, and how much."""

    hardware: Hardware
    pair: Pair
    level: str
    sizes: Sizes
    prompts: Path = FIXTURES / "prompts"

    @property
    def workers(self) -> int:
        """The number of workers that share a server's layers (tensor parallelism)."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
        found, _ = parser.parse_known_args([*self.pair.serve_args, *self.hardware.serve_args])
        return int(found.tensor_parallel_size)

    @property
    def has_servers(self) -> bool:
        """Whether this level observes running servers."""
        return self.level != "static"


@dataclass(frozen=True, config=STRICT)
class _Resolved:
    """A profile as evidence keeps it, without the folder of prompts, which depends on the reader."""

    hardware: Hardware
    pair: Pair
    level: str
    sizes: Sizes


def profile_to_json(profile: Profile) -> dict[str, Any]:
    """The profile as JSON."""
    return {name: value for name, value in asdict(profile).items() if name != "prompts"}


def read_profile(path: Path, level: str, fixtures: Path = FIXTURES) -> Profile:
    """The profile that evidence keeps, at this level.

    Raises:
        UsageError: the file is damaged; the sentence names the file, the key and the mend.
    """
    try:
        table = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}); the evidence is damaged, record a new run.") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path} is not a JSON object; the evidence is damaged, record a new run.")
    if isinstance(table.get("sizes"), dict):  # sizes of earlier versions are ignored
        known = {each.name for each in fields(Sizes)}
        table["sizes"] = {name: size for name, size in table["sizes"].items() if name in known}
    found = toml_tables.convert(path, table, _Resolved)
    profile = Profile(found.hardware, found.pair, found.level, found.sizes, fixtures / "prompts")
    if level == profile.level:
        return profile
    return replace(profile, level=level, sizes=_sizes(fixtures / "levels.toml", level, found.hardware))


def load_profile(hardware: str, pair: str, level: str, fixtures: Path = FIXTURES) -> Profile:
    """The profile with these names; ``hardware`` and ``pair`` may also be paths of TOML files outside fixtures/.

    Raises:
        UsageError: a name is unknown or a file is wrong; the sentence names the file, the key and the mend.
    """
    if level not in LEVELS:
        hint = toml_tables.nearest(level, LEVELS)
        raise UsageError(f'level "{level}" is unknown; choose one of {", ".join(LEVELS)}.{hint}')
    known = load_hardware(_find(fixtures / "hardware", "hardware", hardware))
    return Profile(
        hardware=known,
        pair=load_pair(_find(fixtures / "models", "pair", pair)),
        level=level,
        sizes=_sizes(fixtures / "levels.toml", level, known),
        prompts=fixtures / "prompts",
    )


def with_soak_minutes(profile: Profile, minutes: float) -> Profile:
    """The profile of a soak that takes so many minutes.

    Raises:
        UsageError: the level is not soak, or the time is out of range.
    """
    if profile.level != "soak":
        raise UsageError(
            f"--minutes is the length of a soak: leave it out at level {profile.level}, or add --level soak."
        )
    if not 0 < minutes <= LONGEST_SOAK:
        raise UsageError(f"--minutes {minutes:g} is out of range; write a number such as 30, at most {LONGEST_SOAK}.")
    return replace(profile, sizes=replace(profile.sizes, soak_minutes=minutes))


def soak_windows(sizes: Sizes) -> int:
    """The number of windows in a soak; a long soak has longer windows."""
    return max(1, min(MOST_WINDOWS, round(60 * sizes.soak_minutes / sizes.soak_window_seconds)))


def every_hardware(fixtures: Path = FIXTURES) -> list[Hardware]:
    """All hardware profiles, by name."""
    return [load_hardware(path) for path in sorted((fixtures / "hardware").glob("*.toml"))]


def _of_version(by_version: Mapping[str, str], vllm: str) -> str | None:
    """The value of the first specifier that contains this version."""
    fitting = (
        value for versions, value in by_version.items() if SpecifierSet(versions).contains(vllm, prereleases=True)
    )
    return next(fitting, None)


def _require_specifiers(path: Path, key: str, by_version: Mapping[str, str]) -> None:
    for versions in by_version:
        try:
            SpecifierSet(versions)
        except InvalidSpecifier:
            sentence = f'key {key}."{versions}" is not a version specifier; write one such as ">=0.32".'
            raise UsageError(f"{path}: {sentence}") from None


def load_hardware(path: Path) -> Hardware:
    """Read one hardware file.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the key and the mend.
    """
    hardware = toml_tables.read(path, Hardware, name=path.stem)
    by_version = {f"moe_backend.{name}": table for name, table in (hardware.moe_backend or {}).items()}
    for key, table in {**by_version, "attention_backend": hardware.attention_backend or {}}.items():
        _require_specifiers(path, key, table)
    for name in hardware.environment or {}:
        if is_secret(name):
            raise UsageError(_secret(path, "environment", name))
    _require_no_secret(path, (*hardware.measured, *(hardware.served.serve_args if hardware.served else ())))
    return hardware


def load_pair(path: Path) -> Pair:
    """Read one pair file.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the key and the mend.
    """
    pair = toml_tables.read(path, Pair, name=path.stem, home=str(path.parent))
    if pair.k < 1:
        raise UsageError(f'{path}: key "k" is {pair.k}; it must be at least 1, the number of drafted tokens a step.')
    _require_no_secret(path, pair.serve_args)
    return pair


def _require_no_secret(path: Path, serve_args: Sequence[str]) -> None:
    for word in serve_args:
        if word.startswith("--") and is_secret(word):
            raise UsageError(_secret(path, "serve_args", word.partition("=")[0]))


def _secret(path: Path, key: str, name: str) -> str:
    """The sentence about a secret in a profile."""
    return (
        f'{path}: key "{key}" has {name}, a secret, but evidence keeps profiles; remove it from the file, and set it '
        "in the environment of the command that needs it."
    )


def _sizes(path: Path, level: str, hardware: Hardware) -> Sizes:
    """The level's sizes; on a GPU, those of its table ``gpu`` replace them.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the key and the mend.
    """
    table = toml_tables.parse(path)
    for name in LEVELS:
        if name not in table:
            raise UsageError(f'{path}: table "{name}" is missing; add it.')
    on_gpu = table[level].pop("gpu", {})
    sizes = toml_tables.convert(path, table[level] | (on_gpu if hardware.sm else {}), Sizes, where=level)
    for concurrency in sizes.rounds:
        if not concurrency.isdecimal() or int(concurrency) < 1:
            key = f"{level}.rounds.{concurrency}"
            raise UsageError(
                f'{path}: key "{key}" is not a concurrency; write a number of requests at once, such as 8.'
            )
    return sizes


def _find(folder: Path, kind: str, name: str) -> Path:
    if name.endswith(".toml"):
        try:
            return Path(name).resolve()
        except (OSError, RuntimeError) as error:  # which of them a link to itself raises depends on Python's version
            raise UsageError(f"{name} cannot be found ({error}); name another file.") from None
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        hint = toml_tables.nearest(name, known)
        raise UsageError(f'{kind} "{name}" is unknown; {folder} has {", ".join(known) or "none"}.{hint}')
    return folder / f"{name}.toml"
