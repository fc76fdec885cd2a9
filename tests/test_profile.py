from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conformance import FIXTURES
from conformance.harness.errors import Unsupported, UsageError
from conformance.harness.profile import LEVELS, load_hardware, load_pair, load_profile

PAIR = 'target = "./t"\ndraft = "./d"\nk = 4\nquantisation = "bf16"\n'


@pytest.fixture
def fixtures(tmp_path: Path) -> Path:
    """A copy of fixtures/ to spoil."""
    for name in ("hardware", "models"):
        (tmp_path / name).mkdir()
        for path in (FIXTURES / name).glob("*.toml"):
            shutil.copy(path, tmp_path / name)
    shutil.copy(FIXTURES / "levels.toml", tmp_path)
    return tmp_path


def told(fixtures: Path, hardware: str = "cpu", pair: str = "micro-26b-a4b-bf16", level: str = "qualify") -> str:
    """The sentence with which this profile is refused, without the folder."""
    with pytest.raises(UsageError) as raised:
        load_profile(hardware, pair, level, fixtures)
    return str(raised.value).replace(f"{fixtures}/", "")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("pair", ["micro-26b-a4b-nvfp4", "micro-26b-a4b-bf16"])
def test_the_embedded_profiles_load(pair: str, level: str) -> None:
    profile = load_profile("cpu", pair, level)
    assert (profile.hardware.name, profile.pair.name, profile.level) == ("cpu", pair, level)
    assert profile.pair.k == 4
    assert profile.has_servers == (level != "static")
    assert (profile.sizes.mixed_prompts > 0) == profile.has_servers


@pytest.mark.parametrize("path", sorted((FIXTURES / "hardware").glob("*.toml")), ids=lambda path: path.stem)
def test_every_hardware_file_loads(path: Path) -> None:
    assert load_hardware(path).name == path.stem


@pytest.mark.parametrize("path", sorted((FIXTURES / "models").glob("*.toml")), ids=lambda path: path.stem)
def test_every_pair_file_loads(path: Path) -> None:
    assert load_pair(path).name == path.stem


def test_a_pair_may_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(PAIR)
    pair = load_profile("cpu", str(tmp_path / "mine.toml"), "static").pair
    assert (pair.name, pair.home) == ("mine", str(tmp_path))


def test_unknown_names_are_answered_with_the_known_ones(fixtures: Path) -> None:
    assert told(fixtures, hardware="cpuu").endswith('hardware has cpu. Did you mean "cpu"?')
    assert told(fixtures, pair="llama").endswith("models has micro-26b-a4b-bf16, micro-26b-a4b-nvfp4.")
    assert told(fixtures, level="qualfy") == (
        'level "qualfy" is unknown; choose one of static, smoke, qualify, soak. Did you mean "qualify"?'
    )
    assert told(fixtures, pair="/nowhere/x.toml") == "/nowhere/x.toml: there is no such file."


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("models/micro-26b-a4b-bf16.toml", "k = 4\n", "", 'key "k" is missing; add it.'),
        ("models/micro-26b-a4b-bf16.toml", "k = 4", "k = 0", 'key "k" is 0; it must be at least 1'),
        ("models/micro-26b-a4b-bf16.toml", "k = 4", 'k = "4"', 'key "k" is "4"; it must be a valid integer.'),
        ("models/micro-26b-a4b-bf16.toml", "k = 4", "k = four", "not valid TOML: "),
        ("models/micro-26b-a4b-bf16.toml", "k = 4", 'k = 4\nname = "x"', 'key "name" follows from the file itself'),
        ("hardware/cpu.toml", "two_servers", "two_server", 'is unknown; remove it. Did you mean "two_servers"?'),
        ("hardware/cpu.toml", "stop_seconds = 10", "", 'key "bounds.stop_seconds" is missing; add it.'),
        ("hardware/cpu.toml", '"host"', '"hots"', "it must be 'unified', 'discrete' or 'host'."),
        ("hardware/cpu.toml", '"24"', "24", 'key "serve_args.2" is 24; it must be a valid string.'),
        ("hardware/cpu.toml", '">=0.28"', '"newest"', 'moe_backend.bf16."newest" is no version specifier'),
        ("levels.toml", "[qualify]\nmixed_prompts", "[qualify]\nmixd_prompts", 'key "qualify.mixd_prompts" is unknown'),
        ("levels.toml", "[smoke]", "[smokey]", 'table "smoke" is missing; add it.'),
    ],
)
def test_a_spoilt_file_is_refused_with_file_key_and_mend(
    fixtures: Path, file: str, old: str, new: str, sentence: str
) -> None:
    text = (fixtures / file).read_text()
    assert old in text
    (fixtures / file).write_text(text.replace(old, new, 1))
    refusal = told(fixtures)
    assert refusal.startswith(f"{file}: ")
    assert sentence in refusal


def test_the_expected_moe_backend_goes_by_version() -> None:
    hardware = load_profile("cpu", "micro-26b-a4b-nvfp4", "static").hardware
    assert hardware.expected_moe_backend("nvfp4", "0.32.0+cpu") == "CPU"
    assert hardware.expected_moe_backend("nvfp4", "0.33.0.dev7") == "CPU"
    with pytest.raises(Unsupported, match=r"cpu names no MoE backend for nvfp4 on vLLM 0\.21\.0"):
        hardware.expected_moe_backend("nvfp4", "0.21.0")
    with pytest.raises(Unsupported, match="fp8"):
        hardware.expected_moe_backend("fp8", "0.32.0")
