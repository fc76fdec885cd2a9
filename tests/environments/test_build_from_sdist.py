"""scripts/build_vllm_pr --release: sdists by SHA-256, other targets, folders of sources, and the compiler."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
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
    lock = (ROOT / "envs/first-mtp/lock.txt").read_text()
    for path in (ROOT / "envs/pr-41745/sdists").glob("*.txt"):
        pins = build.sdists(path.stem)
        assert pins.keys() == {"vllm", "transformers"}
        assert pins["vllm"]["version"] == path.stem
    assert f"transformers=={build.sdists(RELEASE)['transformers']['version']} " in lock


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
    assert "choose of 0.21.0" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--release", RELEASE, "--precompiled"], "goes with neither"),
        (["--release", RELEASE, "--pr", "7", "--commit", "0" * 40], "goes with neither"),
        (["--sources", "/"], "go with --release"),
        (["--precompiled", "--target", "cpu"], "goes with --target cuda"),
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


def test_what_was_built_is_noted_beside_the_packages(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    third = {"onednn": {"commit": "c", "tree": "t", "pinned": False, "variable": "V"}}
    flags = {"MAX_JOBS": "2", "CCACHE_DIR": "/secret"}
    step = build.noted("cpu", {"vllm": {"version": "1", "sha256": "s"}, "transformers": {"commit": "k"}}, third, flags)
    command = [sys.executable, *step.command[1:]]
    subprocess.run(command, cwd=tmp_path, check=True)
    noted = json.loads((tmp_path / ".venv/build.json").read_text())
    assert noted["sources"] == {"vllm": {"version": "1", "sha256": "s"}, "transformers": {"commit": "k"}}
    assert noted["third_party"] == {"onednn": {"commit": "c", "tree": "t", "pinned": False}}
    assert (noted["target"], noted["flags"]) == ("cpu", {"MAX_JOBS": "2"})
    assert noted["torch"]
    assert json.loads((tmp_path / ".venv/from-source.json").read_text()) == {"transformers": "k"}


@pytest.fixture
def borrowed(tmp_path: Path) -> Path:
    """A copy of the checkout whose .venv has the packages of this one, and takes what the script installs."""
    root = tmp_path / "checkout"
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


def skip_without_index(root: Path) -> None:
    for log in root.rglob("*.log"):
        if "(from versions: none)" in log.read_text():
            lacking(f"no index in reach: {log.read_text().splitlines()[-1]}")


@pytest.mark.builds
def test_a_build_without_kernels_from_the_sdist(borrowed: Path) -> None:
    words = ("--release", RELEASE, "--target", "empty")
    done = subprocess.run([sys.executable, borrowed / "scripts/build_vllm_pr", *words], capture_output=True, text=True)
    skip_without_index(borrowed)
    logs = "".join(log.read_text()[-2000:] for log in borrowed.rglob("*.log"))
    assert (borrowed / ".venv/build.json").exists(), done.stdout + done.stderr + logs
    code = "import importlib.metadata as m; print(m.version('vllm'), m.version('transformers'))"
    python = borrowed / ".venv/bin/python"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "0.21.0+empty 5.8.1\n"
    (packages,) = borrowed.glob(".venv/lib/python3*/site-packages")
    assert (packages / "vllm/model_executor/models/gemma4_mtp.py").is_file()
    assert not list((packages / "vllm").glob("_C*.so"))


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
