from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance import FIXTURES
from conformance.commands.main import main
from conformance.errors import Unsupported, UsageError
from conformance.profile.arms import MTP
from conformance.profile.facts import load_facts
from conformance.profile.moe_facts import load_moe_facts
from conformance.profile.profile import LEVELS, load_hardware, load_pair, load_profile, profile_to_json, read_profile
from conformance.profile.profile_floors import RATES
from conformance.serving.command import vllm_command

ROOT = FIXTURES.parent
PAIR = 'target = "./t"\ndraft = "./d"\nk = 4\nquantisation = "bf16"\n'


@pytest.fixture
def fixtures(tmp_path: Path) -> Path:
    """A copy of fixtures/ to spoil."""
    for name in ("hardware", "models"):
        (tmp_path / name).mkdir()
        for path in (FIXTURES / name).glob("*.toml"):
            if path.stem in ("cpu", "micro-26b-a4b-bf16", "micro-26b-a4b-nvfp4"):
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


def test_how_often_the_data_may_be_judged_is_fixed_by_level() -> None:
    looks = [load_profile("cpu", "micro-26b-a4b-nvfp4", level).sizes.looks for level in LEVELS]
    assert looks == [1, 1, 2, 1, 1]


def test_unknown_names_are_answered_with_the_known_ones(fixtures: Path) -> None:
    assert told(fixtures, hardware="cpuu").endswith('hardware has cpu. Did you mean "cpu"?')
    assert told(fixtures, pair="llama").endswith("models has micro-26b-a4b-bf16, micro-26b-a4b-nvfp4.")
    assert told(fixtures, level="qualfy") == (
        'level "qualfy" is unknown; choose one of static, smoke, qualify, soak, k-by-batch. Did you mean "qualify"?'
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
        ("hardware/cpu.toml", '">=0.28"', '"newest"', 'moe_backend.bf16."newest" is not a version specifier'),
        ("hardware/cpu.toml", '">=0.21"', '"newest"', 'attention_backend."newest" is not a version specifier'),
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


HARDWARE = sorted(path.stem for path in (FIXTURES / "hardware").glob("*.toml"))
PAIRS = sorted(path.stem for path in (FIXTURES / "models").glob("*.toml"))
GPUS = [name for name in HARDWARE if name != "cpu"]
PUBLISHED = [name for name in PAIRS if name.startswith("gemma-4-")]


def test_the_hardware_and_the_pairs_are_those_that_are_promised() -> None:
    blackwell = ["b200", "b300", "gb10", "rtx-5090", "rtx-pro-6000", "thor"]
    hopper = ["h100", "h100-small", "h100-small-eager", "h200", "h200-small", "h200-x2"]
    assert sorted(HARDWARE) == sorted([*blackwell, *hopper, "ampere", "cpu"])
    assert len(PUBLISHED) == 9


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("hardware", HARDWARE)
def test_every_hardware_goes_with_every_pair(hardware: str, pair: str) -> None:
    profile = load_profile(hardware, pair, "qualify")
    assert (ROOT / "envs" / profile.hardware.locked_environment / "lock.txt").is_file()
    assert profile.pair.k > 0


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_states_its_compute_capability_and_memory(name: str) -> None:
    hardware = load_profile(name, PUBLISHED[0], "qualify").hardware
    assert hardware.sm is not None
    assert hardware.memory_gb is not None
    assert "--gpu-memory-utilization" in hardware.serve_args
    assert hardware.memory in ("unified", "discrete")


@pytest.mark.parametrize("name", GPUS)
def test_the_expected_kernels_are_those_of_the_facts(name: str) -> None:
    """The table of a hardware file repeats what is known of its compute capability, and nothing else."""
    hardware = load_profile(name, PUBLISHED[0], "qualify").hardware
    device = f"SM {hardware.sm}"
    facts = load_moe_facts()
    for quantisation, rows in (("nvfp4", facts.expected), ("bf16", facts.unquantised)):
        known = {(row.versions, row.backend) for row in rows if device in row.on and row.without != "flashinfer"}
        table = (hardware.moe_backend or {})[quantisation]
        assert table
        assert set(table.items()) <= known


def test_the_expected_attention_backend_goes_by_version() -> None:
    hardware = load_profile("cpu", "micro-26b-a4b-nvfp4", "static").hardware
    assert hardware.expected_attention_backend("0.32.0+cpu") == "CPU_ATTN"
    with pytest.raises(Unsupported, match=r"cpu names no attention backend on vLLM 0\.20\.0"):
        hardware.expected_attention_backend("0.20.0")
    with pytest.raises(Unsupported, match="h200 names no attention backend"):
        load_profile("h200", PUBLISHED[0], "static").hardware.expected_attention_backend("0.32.0")
    assert load_profile("gb10", PUBLISHED[0], "static").hardware.expected_attention_backend("0.32.0") == "TRITON_ATTN"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_pair_is_a_target_with_the_draft_of_its_size(name: str) -> None:
    pair, facts = load_profile("cpu", name, "static").pair, load_facts()
    (size,) = [each for each in facts.drafts if name.startswith(f"gemma-4-{each.lower()}")]
    draft, target = facts.drafts[size], facts.targets[size]
    assert pair.draft == draft.repository
    assert (pair.quantisation == "bf16") == (pair.target == target.repository)
    assert pair.weights_gb is not None
    stored = 2 * (target.totals.parameters + draft.totals.parameters) / 1e9  # in BF16
    whole = pair.quantisation == "bf16"
    assert pair.weights_gb == pytest.approx(stored, rel=0.01) if whole else pair.weights_gb < 0.6 * stored


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("hardware", HARDWARE)
def test_every_combination_has_a_plan(hardware: str, pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", "--hardware", hardware, "--pair", pair]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{pair} on {hardware}, level qualify: ")
    files = [FIXTURES / "floors" / f"{name}.toml" for name in (pair, f"{hardware}.{pair}")]
    told = RATES in (load_pair(FIXTURES / f"models/{pair}.toml").speculative or {})
    assert ("no floors" in said) == (not told and not any(file.exists() for file in files))


def test_a_profile_that_is_a_link_to_itself_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    assert main(["--plan", "--pair", str(tmp_path / "loop.toml")]) == 2
    assert "loop.toml" in capsys.readouterr().err


def test_a_plan_sees_that_weights_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", "--hardware", "rtx-5090", "--pair", "gemma-4-31b-bf16"]) == 0
    assert "63.5 GB of weights do not fit into 28.8 GB" in capsys.readouterr().out
    assert main(["--plan", "--hardware", "gb10", "--pair", "gemma-4-26b-a4b-nvfp4"]) == 0
    assert "19.6 GB of weights in 70.4 GB" in capsys.readouterr().out


def test_a_recorded_profile_needs_no_file_of_today(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    profile = load_profile("gb10", "gemma-4-26b-a4b-nvfp4", "qualify")
    path.write_text(json.dumps(profile_to_json(profile)))
    assert read_profile(path, "qualify") == profile
    table = json.loads(path.read_text())
    path.write_text(json.dumps(table | {"sizes": table["sizes"] | {"of_another_suite": 3}}))
    assert read_profile(path, "qualify") == profile
    assert read_profile(path, "soak").sizes == load_profile("cpu", "gemma-4-e2b", "soak").sizes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", r'profile\.json: key "hardware" is missing'),
        ('{"hardware": {"name": "x", "speed": 1}}', r'profile\.json: key "hardware\.speed" is unknown'),
    ],
)
def test_a_recorded_profile_that_is_none_is_refused_by_name(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_profile(tmp_path / "profile.json", "qualify")


def test_a_pair_may_ask_for_more_of_the_speculative_decoding(tmp_path: Path) -> None:
    pair = tmp_path / "pair.toml"
    pair.write_text(
        'target = "./t"\ndraft = "./d"\nk = 2\nquantisation = "bf16"\n'
        '[speculative]\nrejection_sample_method = "synthetic"\nsynthetic_acceptance_rates = [0.5, 0.25]\n'
    )
    for role in "td":
        (tmp_path / role).mkdir()
    command = vllm_command(load_profile("h100", str(pair), "smoke"), MTP)
    asked = json.loads(command[command.index("--speculative-config") + 1])
    assert asked["method"] == "mtp"
    assert asked["num_speculative_tokens"] == 2
    assert asked["synthetic_acceptance_rates"] == [0.5, 0.25]


def test_the_quick_start_names_every_hardware() -> None:
    text = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
    assert set(HARDWARE) <= set(re.findall(r"`([a-z0-9-]+)`", text))


@pytest.mark.parametrize(
    ("change", "together", "roomy"),
    [
        ({}, True, True),
        ({"memory": "discrete"}, False, False),
        ({"memory": "discrete", "serve_args": ("--kv-cache-memory-bytes", "1")}, True, False),
        ({"memory": "discrete", "third_server": True}, False, True),
        ({"two_servers": False, "third_server": True}, True, False),
    ],
)
def test_what_fits_and_what_may_start_at_once(change: dict[str, Any], together: bool, roomy: bool) -> None:
    hardware = replace(load_hardware(FIXTURES / "hardware" / "cpu.toml"), **change)
    assert (hardware.starts_together, hardware.roomy) == (together, roomy)
