"""scripts/build_vllm_pr --release: sdists by SHA-256, other targets, folders of sources, and the compiler."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from environments.test_bootstrap import make_wheel
from environments.test_build_vllm_pr import Checkout, git
from support.debian import lacking
from support.paths import ROOT
from support.scripts import load_script

build = load_script("build_vllm_pr")
RELEASE = "0.21.0"
ONEDNN = "onednn" if platform.machine() == "x86_64" else "onednn-aarch64"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path)
    shutil.copytree(ROOT / "envs/pr-41745", made.root / "envs/pr-41745", dirs_exist_ok=True)
    return made


def compiler(checkout: Checkout, major: int, minor: int, numa: bool = True, clang: bool = False) -> str:
    """A C++ compiler of that version, as far as it is asked."""
    path = checkout.tools / "c++"
    macros = f"#define __GNUC__ {major}\\n#define __GNUC_MINOR__ {minor}\\n" + "#define __clang__ 1\\n" * clang
    path.write_text(f"#!/bin/sh\ncase \"$*\" in *-dM*) printf '{macros}' ;; '-E -') exit {int(not numa)} ;; esac\n")
    path.chmod(0o755)
    return str(path)


def sources(checkout: Checkout) -> tuple[Path, str]:
    """A folder for --sources, and the tree of what it has of oneDNN."""
    folder = checkout.root.parent / "third"
    (folder / ONEDNN / "src").mkdir(parents=True)
    (folder / ONEDNN / "src/one.cpp").write_text("int one;\n")
    git(folder / ONEDNN, "init", "--quiet")
    git(folder / ONEDNN, "add", "--all")
    tree = git(folder / ONEDNN, "write-tree")
    shutil.rmtree(folder / ONEDNN / ".git")  # as from an archive
    return folder, tree


def test_a_dry_run_shows_the_sdists_and_their_hashes(checkout: Checkout) -> None:
    done = checkout.build("--release", RELEASE, "--target", "empty", "--dry-run", tools=False)
    assert (done.returncode, done.stderr) == (0, "")
    pins = (ROOT / f"envs/pr-41745/sdists/{RELEASE}.txt").read_text()
    for line in pins.splitlines()[2:]:
        assert line in done.stdout
    for part in ("CONFORMANCE_ENV=cpu scripts/bootstrap", "VLLM_TARGET_DEVICE=empty", "--require-hashes", "--unlocked"):
        assert part in done.stdout
    assert "git clone" not in done.stdout
    assert not (checkout.root / "build").exists()


def test_every_sdist_is_of_the_release_and_of_the_locked_transformers() -> None:
    names = {"0.21.0": "first-mtp", "0.32.0": "cpu"}
    assert names.keys() == {path.stem for path in (ROOT / "envs/pr-41745/sdists").glob("*.txt")}
    for release, environment in names.items():
        pins = build.sdists(release)
        assert pins.keys() == {"vllm", "transformers"}
        assert pins["vllm"]["version"] == release
        assert (
            f"transformers=={pins['transformers']['version']} " in (ROOT / f"envs/{environment}/lock.txt").read_text()
        )


def test_every_tool_of_the_build_is_locked() -> None:
    lock = (ROOT / "envs/pr-41745/lock.txt").read_text().splitlines()
    texts = [(ROOT / f"envs/pr-41745/{name}.txt").read_text() for name in ("build-tools", "of-its-time")]
    names = [name for text in texts for name in text.splitlines()]
    for name in (name for name in names if not name.startswith("#")):
        assert any(line.startswith(f"{name}==") for line in lock), name


def test_every_third_party_source_has_a_whole_commit_and_a_known_tree_or_none() -> None:
    for rows in tomllib.loads((ROOT / "envs/pr-41745/third-party.toml").read_text()).values():
        for row in rows.values():
            hashes = [row["commit"], row.get("tree", row["commit"])]
            assert all(len(each) == 40 and int(each, 16) for each in hashes)
            assert row["target"] in ("cpu", "cuda")


def test_a_release_without_hashes_is_refused(checkout: Checkout) -> None:
    done = checkout.build("--release", "0.99.0", "--target", "empty")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "envs/pr-41745/sdists/0.99.0.txt does not exist" in done.stderr
    assert "choose of 0.21.0, 0.32.0" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--release", RELEASE, "--precompiled"], "name a wheel, or leave out the rest"),
        (["--release", RELEASE, "--pr", "7", "--commit", "0" * 40], "does not go with --pr"),
        (["--sources", "/"], "go with --release"),
        (["--precompiled", "--target", "cpu"], "name a wheel, or leave out the rest"),
        (["--precompiled", "a.whl", "--target", "empty"], "has no kernels"),
        (["--precompiled", "a.whl", "--target", "cpu"], "a.whl is no wheel: name one of vLLM"),
    ],
)
def test_options_that_do_not_go_together(checkout: Checkout, words: list[str], said: str) -> None:
    done = checkout.build(*words)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="vLLM asks for a newer GCC on x86-64 only")
@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"major": 12, "minor": 2}, "is GCC 12.2, and vLLM's CPU kernels need another compiler: install GCC 12.3"),
        ({"major": 4, "minor": 2, "clang": True}, "is Clang, and vLLM's CPU kernels need another compiler"),
        ({"major": 14, "minor": 2, "numa": False}, "finds no numa.h: install libnuma's headers"),
    ],
)
def test_a_compiler_that_cannot_do_it_is_refused_first(checkout: Checkout, found: dict[str, int], said: str) -> None:
    done = checkout.build("--release", RELEASE, "--target", "cpu", CXX=compiler(checkout, **found))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
    assert not (checkout.root / "asked").exists()


def test_no_compiler_is_refused(checkout: Checkout) -> None:
    done = checkout.build("--release", RELEASE, "--target", "cpu", CXX="no-such-compiler")
    assert done.returncode == 2
    assert "no-such-compiler is no C++ compiler here: install GCC 12.3" in done.stderr


def test_a_folder_must_hold_the_pinned_tree_or_be_accepted_by_name(checkout: Checkout) -> None:
    folder, tree = sources(checkout)
    words = ("--release", RELEASE, "--target", "cpu", "--dry-run", "--sources", str(folder))
    done = checkout.build(*words)
    assert done.returncode == 2
    assert f"holds the tree {tree}, and that of {ONEDNN} at" in done.stderr
    assert f"accept this one with --accept {ONEDNN}={tree}." in done.stderr
    done = checkout.build(*words, "--accept", f"{ONEDNN}={tree}")
    assert done.returncode == 0
    assert f"FETCHCONTENT_SOURCE_DIR_ONEDNN={folder / ONEDNN}" in done.stdout
    assert '"pinned": false' in done.stdout
    (folder / ONEDNN / "src/one.cpp").write_text("int two;\n")
    assert checkout.build(*words, "--accept", f"{ONEDNN}={tree}").returncode == 2


def test_the_pinned_tree_is_taken(checkout: Checkout) -> None:
    folder, tree = sources(checkout)
    path = checkout.root / "envs/pr-41745/third-party.toml"
    pinned = tomllib.loads(path.read_text())[RELEASE][ONEDNN]["tree"]
    path.write_text(path.read_text().replace(pinned, tree))
    done = checkout.build("--release", RELEASE, "--target", "cpu", "--dry-run", "--sources", str(folder))
    assert done.returncode == 0
    assert '"pinned": true' in done.stdout


def test_a_folder_that_is_not_there_and_a_name_that_is_not_used(checkout: Checkout, tmp_path: Path) -> None:
    words = ("--release", RELEASE, "--target", "cpu", "--dry-run")
    done = checkout.build(*words, "--sources", str(tmp_path))
    assert f"{tmp_path / ONEDNN} does not exist: put {ONEDNN} at" in done.stderr
    assert (
        "--accept names cutlass: this build uses no such source"
        in checkout.build(*words, "--accept", "cutlass=0").stderr
    )


def noted(folder: Path, stamp: str, log: str | None) -> dict[str, Any]:
    """What .venv/build.json says of a wheel of four bytes, with that stamp and that log of ccache's counts."""
    (folder / ".venv").mkdir()
    (folder / "wheel-1").mkdir()
    (folder / "wheel-1/vllm.whl").write_text("four")
    if log is not None:
        (folder / "wheel-1.ccache").write_text(log)
    wheel = build.Step("vllm-wheel", ("pip", "--wheel-dir", str(folder / "wheel-1"), "."), folder=folder)
    wheel.stamp().write_text(stamp)
    third = {"onednn": {"commit": "c", "tree": "t", "pinned": False, "variable": "V"}}
    flags = {"MAX_JOBS": "2", "CCACHE_DIR": "/secret"}
    sources = {"vllm": {"version": "1", "sha256": "s"}, "transformers": {"commit": "k"}}
    step = build.noted("cpu", sources, third, flags, wheel)
    subprocess.run([sys.executable, *step.command[1:]], cwd=folder, check=True)
    document: dict[str, Any] = json.loads((folder / ".venv/build.json").read_text())
    return document


def test_what_was_built_is_noted_beside_the_packages(tmp_path: Path) -> None:
    document = noted(tmp_path, '{"cpu_s": 7.5, "wall_s": 4.0}', None)
    assert document["sources"] == {"vllm": {"version": "1", "sha256": "s"}, "transformers": {"commit": "k"}}
    assert document["third_party"] == {"onednn": {"commit": "c", "tree": "t", "pinned": False}}
    assert (document["target"], document["flags"]) == ("cpu", {"MAX_JOBS": "2"})
    assert document["torch"]
    assert document["vllm_wheel"] == {"cpu_s": 7.5, "wall_s": 4.0, "bytes": 4}
    assert json.loads((tmp_path / ".venv/from-source.json").read_text()) == {"transformers": "k"}


def test_what_ccache_knew_is_noted_and_an_older_stamp_has_no_seconds(tmp_path: Path) -> None:
    log = "# a.cpp\ncache_miss\ndirect_cache_miss\n# b.cpp\ndirect_cache_hit\n# c.cpp\npreprocessed_cache_hit\n"
    cost = noted(tmp_path, "", log)["vllm_wheel"]
    assert (cost["ccache"].pop("version") is not None, cost) == (True, {"bytes": 4, "ccache": {"hits": 2, "misses": 1}})


def test_the_page_shows_the_measured_builds() -> None:
    notes = sorted((ROOT / "docs/results/builds").glob("*.json"))
    assert notes
    command = [sys.executable, ROOT / "scripts/note_build", "--table", *notes]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert table in (ROOT / "docs/environments.md").read_text()


@pytest.mark.long  # it judges two archives
def test_the_page_shows_the_build_beside_the_published_wheel(tmp_path: Path) -> None:
    folders, verdicts = [], []
    for kind in ("releases/0.32.0", "builds/0.32.0-cpu"):
        with tarfile.open(ROOT / f"docs/results/{kind}.tar.xz") as archive:
            archive.extractall(tmp_path / kind, filter="data")
        (folder,) = (tmp_path / kind).iterdir()
        command = [sys.executable, "-m", "conformance", "rejudge", folder]
        assert subprocess.run(command, capture_output=True).returncode in (0, 3)  # 3: LOSS-01 of the wheel is open
        rows = map(json.loads, (folder / "verdicts.jsonl").read_text().splitlines())
        verdicts.append({row["id"]: row["verdict"] for row in rows if row["kind"] == "verdict"})
        folders.append(folder)
    assert {id for id in verdicts[0] if verdicts[0][id] != verdicts[1][id]} == {"ENV-01", "LOSS-01"}
    command = [sys.executable, "-m", "conformance", "compare", "--markdown", *folders]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs/environments.md").read_text()
    shown = [line for line in page.splitlines() if "no difference shown" in line or "(differs)" in line]
    assert len(shown) == 6
    assert set(shown) <= set(said.splitlines())


def test_a_row_of_the_table_has_the_figures_of_its_note(tmp_path: Path) -> None:
    document = noted(tmp_path, '{"cpu_s": 90.0, "wall_s": 60.0}', "# a.cpp\ncache_miss\n# b.cpp\ndirect_cache_hit\n")
    document |= {"compiler": "c++ 14", "torch": "2.13.0"}
    (tmp_path / "note.json").write_text(json.dumps(document))
    command = [sys.executable, ROOT / "scripts/note_build", "--table", tmp_path / "note.json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[2:] == ["| 1 | cpu | c++ 14 | 2.13.0 | 2 | 1 | 1.5 | 0.0 |"]


def test_the_script_says_whether_it_uses_ccache(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout.tools))
    seen = [build.cache()]
    (checkout.tools / "ccache").write_text("")
    (checkout.tools / "ccache").chmod(0o755)
    seen.append(build.cache())
    assert seen == ["ccache is not on PATH, so every object is compiled", f"ccache is used ({checkout.tools}/ccache)"]


def test_a_patch_is_applied_to_its_release_alone_and_noted(checkout: Checkout) -> None:
    words = ("--target", "empty", "--dry-run")
    plain = checkout.build("--release", "0.21.0", *words).stdout
    patched = checkout.build("--release", "0.32.0", *words).stdout
    patch = checkout.root / "envs/pr-41745/patches/vllm-0.32.0.patch"
    sha256 = hashlib.sha256(patch.read_bytes()).hexdigest()
    assert f"git apply {patch}" in patched
    assert f'"patch": "{sha256}"' in patched
    assert f"-{sha256[:12]}/source" in patched  # another patch is another folder
    assert "git apply" not in plain


def test_a_patch_changes_the_sdist_inside_a_git_checkout(tmp_path: Path) -> None:
    patch = ROOT / "envs/pr-41745/patches/vllm-0.32.0.patch"
    hunks = re.split(r"^@@.*\n", patch.read_text(), flags=re.MULTILINE)[1:]
    before = "".join(line[1:] for line in "".join(hunks).splitlines(keepends=True) if line[0] in " -")
    file = tmp_path / "build/vllm/source/vllm/utils/cpu_triton_utils.py"
    file.parent.mkdir(parents=True)
    file.write_text("#\n" * 15 + before)
    git(tmp_path, "init", "--quiet")
    source = {"version": "0.32.0", "sha256": "0" * 64, "patch": "1" * 64}
    step = build.unpacked("vllm", source, tmp_path / "build/vllm")[-1]
    subprocess.run(step.command, cwd=step.cwd, env=os.environ | dict(step.environment), check=True)
    assert "block_size: int" not in file.read_text()


def wheel_for(checkout: Checkout, torch: str) -> Path:
    """A wheel of vLLM that requires that torch, where the environment cpu has 2.13.0+cpu."""
    shutil.copytree(ROOT / "envs/cpu", checkout.root / "envs/cpu", dirs_exist_ok=True)
    path = checkout.root.parent / "vllm.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "vllm-1.dist-info/METADATA", f"Name: vllm\nRequires-Dist: torch=={torch}; os_name == 'posix'\n"
        )
    return path


def test_kernels_for_another_torch_are_refused(checkout: Checkout) -> None:
    wheel = wheel_for(checkout, "2.11.0+cpu")
    done = checkout.build("--release", RELEASE, "--target", "cpu", "--precompiled", str(wheel))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "has kernels for torch 2.11.0, and envs/cpu/lock.txt has torch 2.13.0" in done.stderr


def test_the_kernels_of_a_wheel_are_named_by_its_hash(checkout: Checkout) -> None:
    wheel = wheel_for(checkout, "2.13.0+cpu")
    words = ("--release", RELEASE, "--target", "cpu", "--precompiled", str(wheel))
    done = checkout.build(*words, "--dry-run", CXX="no-such-compiler")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"VLLM_USE_PRECOMPILED=1 VLLM_PRECOMPILED_WHEEL_LOCATION={wheel}" in done.stdout
    assert (
        f'"kernels": {{"file": "vllm.whl", "sha256": "{hashlib.sha256(wheel.read_bytes()).hexdigest()}"}}'
        in done.stdout
    )
    assert "ONEDNN" not in done.stdout


def borrow(root: Path) -> Path:
    """A copy of the checkout whose .venv has the packages of this one, and takes what the script installs."""
    shutil.copytree(ROOT / "scripts", root / "scripts")
    shutil.copytree(ROOT / "envs", root / "envs")
    (root / "conformance").mkdir()
    (root / "conformance/test_nothing.py").write_text("def test_nothing(): pass\n")
    (root / "scripts/bootstrap").write_text("#!/bin/sh\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
    (packages,) = root.glob(".venv/lib/python3*/site-packages")
    (theirs,) = (ROOT / ".venv/lib").glob("python3*/site-packages")
    (packages / "borrowed.pth").write_text(f"{theirs}\n")
    return root


@pytest.fixture
def borrowed(tmp_path: Path) -> Path:
    return borrow(tmp_path / "checkout")


def build_without_kernels(root: Path, **variables: str) -> list[Path]:
    """Build the release there; the wheels of vLLM and of transformers, in this order."""
    words = ("--release", RELEASE, "--target", "empty")
    command = [sys.executable, root / "scripts/build_vllm_pr", *words]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    skip_without_index(root)
    logs = "".join(log.read_text()[-2000:] for log in root.rglob("*.log"))
    assert (root / ".venv/build.json").exists(), done.stdout + done.stderr + logs
    return [*root.glob("build/pr-41745/vllm-*/wheel-*/*.whl"), *root.glob("build/pr-41745/trans*/wheel-*/*.whl")]


def skip_without_index(root: Path) -> None:
    for log in root.rglob("*.log"):
        if "(from versions: none)" in log.read_text():
            lacking(f"no index in reach: {log.read_text().splitlines()[-1]}")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A checkout where the release was built without kernels, and the wheels of vLLM and of transformers."""
    newer = tmp_path_factory.mktemp("newer")
    make_wheel(newer, "transformers", "99.0")  # the user's own folder has a newer one
    root = borrow(tmp_path_factory.mktemp("one") / "checkout")
    return root, build_without_kernels(root, PIP_FIND_LINKS=f"{os.environ.get('PIP_FIND_LINKS', '')} {newer}")


@pytest.mark.builds
def test_a_build_without_kernels_from_the_sdist(released: tuple[Path, list[Path]]) -> None:
    root, _ = released
    code = "import importlib.metadata as m; print(m.version('vllm'), m.version('transformers'))"
    said = subprocess.run([root / ".venv/bin/python", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "0.21.0+empty 5.8.1\n"
    (packages,) = root.glob(".venv/lib/python3*/site-packages")
    assert (packages / "vllm/model_executor/models/gemma4_mtp.py").is_file()
    assert not list((packages / "vllm").glob("_C*.so"))


@pytest.mark.builds
def test_two_builds_without_kernels_are_the_same_byte_for_byte(
    released: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    _, first = released
    second = build_without_kernels(borrow(tmp_path / "a-folder-with-a-longer-name/checkout"))
    assert [wheel.name.split("-")[0] for wheel in first] == ["vllm", "transformers"]
    for one, other in zip(first, second, strict=True):
        command = [sys.executable, ROOT / "scripts/compare_wheels", one, other]
        compared = subprocess.run(command, capture_output=True, text=True)
        assert (compared.returncode, compared.stderr) == (0, ""), compared.stdout
        assert "the archives are the same" in compared.stdout


@pytest.mark.builds
def test_an_sdist_of_another_hash_is_not_built(borrowed: Path) -> None:
    path = borrowed / f"envs/pr-41745/sdists/{RELEASE}.txt"
    path.write_text(path.read_text().replace("sha256:05ff", "sha256:05fe"))
    words = ("--release", RELEASE, "--target", "empty")
    command = [sys.executable, borrowed / "scripts/build_vllm_pr", *words]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 2
    skip_without_index(borrowed)
    log = next(borrowed.glob("build/pr-41745/vllm-*/vllm-sdist.log"))
    assert "DO NOT MATCH THE HASHES" in log.read_text()
    assert not (borrowed / ".venv/build.json").exists()
