"""``qualify recipe``: exactly what a recipe launches becomes a pair and a hardware profile, and nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.paths import ROOT

from conformance.commands import qualify
from conformance.commands.main import main
from conformance.profile.arms import MTP, SERVED
from conformance.profile.profile import load_profile
from conformance.profile.recipes import read_recipe, recipe_hardware
from conformance.serving.command import vllm_command, vllm_environment

RECIPE = ROOT / "tests" / "support" / "gemma-recipe.yaml"
WORDS = ["recipe", str(RECIPE), "--only-write"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somewhere").mkdir()
    monkeypatch.setattr("conformance.serving.command.target_folder", lambda _: tmp_path / "somewhere")
    monkeypatch.setattr("conformance.serving.command.draft_folder", lambda _: tmp_path / "somewhere")


def test_the_servers_get_what_the_recipe_launches() -> None:
    assert main([*WORDS, "--variant", "nvidia_nvfp4", "--hardware", "gb10"]) == 0
    profile = load_profile("recipe/gb10.toml", "recipe/gemma-4-26b-a4b-nvfp4.toml", "qualify")
    assert profile.pair.target == "nvidia/Gemma-4-26B-A4B-NVFP4"
    assert profile.pair.target_revision, "a pair that we know keeps its revisions"
    command = vllm_command(profile, SERVED)
    words = "--max-model-len 16384 --gpu-memory-utilization 0.8 --max-num-seqs 8 --enable-prefix-caching"
    words += " --enable-auto-tool-choice --tool-call-parser gemma4 --reasoning-parser gemma4"
    assert words in " ".join(command)
    assert not {"--host", "--language-model-only", "--chat-template", "--no-enable-prefix-caching"} & set(command)
    speculative = json.loads(command[command.index("--speculative-config") + 1])
    assert (speculative["moe_backend"], speculative["num_speculative_tokens"]) == ("triton", 4)
    timed = vllm_command(profile, MTP)
    assert timed.index("--no-enable-prefix-caching") > timed.index("--enable-prefix-caching")
    environment = vllm_environment(profile, Path("snapshots"), {})
    assert (environment["VLLM_USE_V2_MODEL_RUNNER"], environment["FROM_MODEL"]) == ("1", "1")


def test_features_can_be_chosen() -> None:
    found = read_recipe(RECIPE, "default", "h100", ["text_only"])
    assert found.arguments == ("--max-model-len", "16384", "--language-model-only")
    assert found.quantisation == "bf16"


def test_a_recipe_is_judged_by_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(qualify, "judge", lambda words, _: asked.append(words) or 3)
    assert main(["recipe", str(RECIPE), "--hardware", "h100", "--level", "static", "--into", "there"]) == 3
    (words,) = asked
    assert words[:3] == ["--pair=there/gemma-4-26b-a4b-bf16.toml", "--hardware=there/h100.toml", "--level=static"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--variant", "fp8", "--hardware", "gb10"], 'variant "fp8" is none of default, nvidia_nvfp4'),
        (["--variant", "nvidia_nvfp4", "--hardware", "h100"], "is for dgx_spark_gb10, not h100"),
        (["--hardware", "cpu"], "Hardware cpu has no name in recipes"),
    ],
)
def test_what_a_recipe_has_not_is_bad_input(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "cannot be read as YAML"),
        ("- a", "holds no table"),
        ("model: {}", 'key "variants" is missing'),
        ("model: {model_id: a}\nvariants: {default: {}}\nmeta: {}", 'has no mode "mtp"'),
        ("!!python/object/apply:os.system ['touch taken']", "cannot be read as YAML"),
    ],
)
def test_what_is_no_recipe_is_bad_input(text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(text)
    assert main(["recipe", "bad.yaml", "--only-write", "--hardware", "gb10"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("taken").exists()


def test_every_hardware_of_the_table_is_a_profile() -> None:
    assert all((ROOT / "fixtures/hardware" / f"{name}.toml").is_file() for name in recipe_hardware())
