"""``qualify recipe``: exactly what a recipe launches becomes a pair and a hardware profile, and nothing is guessed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from support.paths import ROOT

from conformance.commands import qualify
from conformance.commands.main import main
from conformance.errors import UsageError
from conformance.formats import toml_tables
from conformance.profile.arms import MTP, SERVED
from conformance.profile.profile import load_profile
from conformance.profile.recipes import NAMES, read_recipe, recipe_hardware
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
    assert found.quantisation == "bf16"
    assert found.arguments[-1] == "--language-model-only"
    assert "--enable-auto-tool-choice" not in found.arguments


def test_what_a_recipe_says_of_a_generation_holds_and_the_later_of_two_values() -> None:
    hopper, blackwell = (read_recipe(RECIPE, "default", each, ["text_only"]) for each in ("h100", "b200"))
    words = ("--tensor-parallel-size", "2", "--max-model-len", "8192", "--language-model-only")
    assert (hopper.arguments, hopper.environment) == (words, {"FROM_MODEL": "1", "OF_HOPPER": "1"})
    assert blackwell.arguments == ("--max-model-len", "16384", "--language-model-only")
    assert blackwell.environment == {"FROM_MODEL": "1"}


def test_mtp_may_be_a_feature_without_modes() -> None:
    document = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    mtp = document["features"]["spec_decoding"].pop("modes")["mtp"]
    words = ["--max-num-seqs", "4", *mtp["args"]]
    document["features"]["spec_decoding"] = {"args": words, "env": {"OF_MTP": 1}}
    Path("flat.yaml").write_text(json.dumps(document))
    found = read_recipe(Path("flat.yaml"), "default", "b200", [])
    assert found.speculative == json.loads(mtp["args"][1])
    assert found.arguments == ("--max-model-len", "16384", "--max-num-seqs", "4")
    assert found.environment["OF_MTP"] == "1"
    document["features"]["spec_decoding"] = {
        "args": ["--speculative-config", words[-1].replace("{", '{"method":"eagle3",', 1)]
    }
    Path("other.yaml").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="launches eagle3, not mtp"):
        read_recipe(Path("other.yaml"), "default", "b200")


def test_a_mode_that_does_not_suit_is_not_taken() -> None:
    document = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    document["features"]["spec_decoding"]["modes"]["mtp"]["hardware"] = {"hopper": "unsupported"}
    Path("gated.yaml").write_text(json.dumps(document))
    assert read_recipe(Path("gated.yaml"), "default", "b200").speculative
    with pytest.raises(UsageError, match='feature "spec_decoding" launches no MTP'):
        read_recipe(Path("gated.yaml"), "default", "h100")


@pytest.fixture
def checkout() -> Path:
    for name in ("Google/Gemma-4-A", "Google/gemma-4-b", "other/gemma-4-b"):
        path = Path(f"checkout/models/{name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(RECIPE, path)
    return Path("checkout")


@pytest.mark.parametrize("name", ["gemma-4-a", "google/gemma-4-A"])
def test_a_recipe_has_a_name_in_a_checkout(name: str, checkout: Path) -> None:
    assert main(["recipe", name, "--recipes", str(checkout), "--only-write", "--hardware", "gb10"]) == 0
    assert Path("recipe/gb10.toml").is_file()


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    ("name", "folder", "said"),
    [
        ("gemma-4-c", "checkout", "has no recipe gemma-4-c; like it: Google/Gemma-4-A"),
        ("gemma-4-b", "checkout", "more than once; write one of Google/gemma-4-b, other/gemma-4-b"),
        ("../../etc/passwd", "checkout", "has no recipe ../../etc/passwd"),
        ("gemma-4-a", "somewhere", "somewhere is no checkout of vllm-project/recipes"),
        ("gemma-4-a", "nowhere", "nowhere is no checkout of vllm-project/recipes"),
    ],
)
def test_a_name_that_is_none_is_bad_input(
    name: str, folder: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", name, "--recipes", folder, "--only-write", "--hardware", "gb10"]) == 2
    assert said in capsys.readouterr().err


def test_a_chat_template_must_exist_where_the_servers_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--hardware", "b200"]
    assert main(words) == 2
    assert "--chat-template a.jinja is no file here; start in a checkout of vLLM" in capsys.readouterr().err
    Path("a.jinja").touch()
    assert main(words) == 0
    assert str(Path("a.jinja").absolute()) in Path("recipe/b200.toml").read_text()
    Path("a.jinja").unlink()
    assert main([*words, "--image", "an/image:of-vllm"]) == 0, "the image has it"


def test_a_recipe_is_judged_by_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(qualify, "judge", lambda words, _: asked.append(words) or 3)
    Path("a.jinja").touch()
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
        ("model: {model_id: a}\nvariants: {default: {}}\nmeta: {}", 'feature "spec_decoding" launches no MTP'),
        ("!!python/object/apply:os.system ['touch taken']", "cannot be read as YAML"),
    ],
)
def test_what_is_no_recipe_is_bad_input(text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(text)
    assert main(["recipe", "bad.yaml", "--only-write", "--hardware", "gb10"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("taken").exists()


def test_every_hardware_of_the_table_is_a_profile_and_has_a_generation() -> None:
    assert {*toml_tables.parse(NAMES)["generation"]} == {*recipe_hardware().values()}
    assert all((ROOT / "fixtures/hardware" / f"{name}.toml").is_file() for name in recipe_hardware())
