"""scripts/build_vllm_pr in a checkout of its own: real git, empty sources, and a Python that notes what it does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.paths import ROOT

SOURCES = tomllib.loads((ROOT / "envs/pr-41745/from-source.toml").read_text())
PYTHON = """#!/bin/sh
echo "$TORCH_CUDA_ARCH_LIST|$MAX_JOBS|$*" >>"${0%/.venv/*}/asked"
case "$*" in *"$FAILS"*) [ -z "$FAILS" ] || { echo "ninja: build stopped"; exit 1; } ;; esac
"""


def git(folder: Path, *words: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "uploadpack.allowFilter=true")
    command = ["git", *own, *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


class Checkout:
    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.source = folder / "source"
        self.tools = folder / "tools"
        for path in (
            self.root / "scripts",
            self.root / ".venv/bin",
            self.root / "envs/pr-41745",
            self.source,
            self.tools,
        ):
            path.mkdir(parents=True)
        for name in ("build_vllm_pr", "kernels.py"):
            shutil.copy2(ROOT / "scripts" / name, self.root / "scripts")
        for path, text in {
            self.root / "scripts/bootstrap": "#!/bin/sh\n",
            self.root / ".venv/bin/python": PYTHON,
            self.tools / "nvcc": "#!/bin/sh\n",
            self.tools / "nvidia-smi": "#!/bin/sh\nprintf '12.1\\n8.6\\n12.1\\n'\n",
        }.items():
            path.write_text(text)
            path.chmod(0o755)
        git(self.source, "init", "--quiet")
        git(self.source, "commit", "--quiet", "--allow-empty", "--message", "one")
        self.commit = git(self.source, "rev-parse", "HEAD")
        git(self.source, "commit", "--quiet", "--allow-empty", "--message", "two")
        git(self.source, "update-ref", "refs/pull/7/head", "HEAD")
        self.name(self.source.as_uri(), self.commit)

    def name(self, repository: str, commit: str) -> None:
        rows = (f'[{name}]\nrepository = "{repository}"\ncommit = "{commit}"\n' for name in ("vllm", "transformers"))
        (self.root / "envs/pr-41745/from-source.toml").write_text("".join(rows))

    def build(self, *words: str, tools: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("HOME",) if name in os.environ}
        here = f"{self.tools}:" if tools else ""
        own = {"PATH": f"{here}/usr/bin:/bin", "CUDA_HOME": "/nowhere", "FAILS": "", "GIT_TERMINAL_PROMPT": "0"}
        command = [sys.executable, self.root / "scripts/build_vllm_pr", *words]
        return subprocess.run(command, env={**kept, **own, **variables}, capture_output=True, text=True)

    def asked(self) -> list[str]:
        return (self.root / "asked").read_text().splitlines()

    def wheels(self, option: str) -> list[str]:
        """The folders that vLLM's wheels were put into (--wheel-dir) or taken from (--find-links)."""
        said = "\n".join(self.asked())
        return re.findall(rf"{option} (\S*/vllm-\S+)", said)

    def at(self, commit: str) -> str:
        """Where the source of vLLM at that commit is."""
        return git(self.root / f"build/pr-41745/vllm-{commit[:12]}/source", "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_commits_are_whole_and_those_of_the_pull_request() -> None:
    assert SOURCES["vllm"]["commit"] == "27e0057aeda6bc443069c20fdf2f3cc95ed892f3"
    assert SOURCES["transformers"]["commit"] == "2c7d385621c80fee70c1472f3a622fcba2c93fb9"


def test_a_dry_run_prints_every_step_and_does_none(checkout: Checkout) -> None:
    shutil.copy2(ROOT / "envs/pr-41745/from-source.toml", checkout.root / "envs/pr-41745")
    done = checkout.build("--dry-run", tools=False)
    assert (done.returncode, done.stderr) == (0, "")
    for part in (
        "scripts/bootstrap",
        f"git checkout --force --detach {SOURCES['vllm']['commit']}",
        f"# must print {SOURCES['transformers']['commit']}",
        "use_existing_torch.py",
        "TORCH_CUDA_ARCH_LIST=",
        "--no-build-isolation",
        "--level static",
    ):
        assert part in done.stdout
    assert not (checkout.root / "build").exists()


def test_it_builds_for_the_gpus_here_and_ends_with_level_static(checkout: Checkout) -> None:
    done = checkout.build()
    assert (done.returncode, done.stderr) == (0, "")
    asked = checkout.asked()
    (wheel,) = [line for line in asked if line.startswith("8.6;12.1a|")]
    assert "pip wheel" in wheel
    assert asked[-1].endswith("-m pytest conformance/ --level static")
    assert checkout.at(checkout.commit) == checkout.commit


def test_what_is_done_is_not_done_again(checkout: Checkout) -> None:
    failed = checkout.build(FAILS="--wheel-dir")
    assert failed.returncode == 2
    assert "vllm-wheel failed; its last line is: ninja: build stopped" in failed.stderr
    assert "run this again to continue" in failed.stderr
    done = checkout.build()
    assert done.returncode == 0
    assert "vllm-clone" not in done.stdout
    assert "vllm-wheel" in done.stdout
    assert "vllm-wheel" not in checkout.build().stdout


def test_another_pull_request_is_built_by_number_and_commit_and_judged_unlocked(checkout: Checkout) -> None:
    commit = git(checkout.source, "rev-parse", "HEAD")
    assert checkout.build("--pr", "7", "--commit", commit).returncode == 0
    assert checkout.at(commit) == commit
    assert checkout.asked()[-1].endswith("--level static --unlocked")


def test_every_commit_is_installed_from_a_wheel_of_its_own(checkout: Checkout) -> None:
    other = git(checkout.source, "rev-parse", "HEAD")
    for words in ((), ("--pr", "7", "--commit", other), ()):
        assert checkout.build(*words).returncode == 0
    first, second = checkout.wheels("--wheel-dir")  # the third time it is there
    assert (checkout.commit[:12] in first, other[:12] in second) == (True, True)
    assert checkout.wheels("--find-links") == [first, second, first]
    checkout.name(checkout.source.as_uri(), other)  # the same commit, by another way
    assert checkout.build().returncode == 0
    assert len(checkout.wheels("--wheel-dir")) == 2


def test_wheels_of_other_kernels_are_kept_apart(checkout: Checkout) -> None:
    for words in ((), ("--precompiled",), ()):
        assert checkout.build(*words).returncode == 0
    first, second = checkout.wheels("--wheel-dir")
    assert first != second
    assert checkout.wheels("--find-links") == [first, second, first]


def test_a_source_at_another_commit_is_refused_until_its_folder_is_deleted(checkout: Checkout) -> None:
    assert checkout.build().returncode == 0
    folder = checkout.root / f"build/pr-41745/vllm-{checkout.commit[:12]}"
    git(folder / "source", "checkout", "--quiet", "--detach", git(checkout.source, "rev-parse", "HEAD"))
    done = checkout.build()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"build/pr-41745/{folder.name} is at " in done.stderr
    assert done.stderr.endswith("delete that folder.\n")
    shutil.rmtree(folder)
    assert checkout.build().returncode == 0


@pytest.mark.parametrize("words", [["--pr", "7"], ["--commit", "0" * 40], ["--pr", "7", "--commit", "abc"]])
def test_half_a_name_is_refused(checkout: Checkout, words: list[str]) -> None:
    done = checkout.build(*words)
    assert done.returncode == 2
    assert re.search("go together|all 40 hex digits", done.stderr)


def test_without_nvcc(checkout: Checkout) -> None:
    done = checkout.build(tools=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nvcc is not on PATH" in done.stderr
    assert checkout.build("--precompiled", tools=False).returncode == 0
    assert not any("12.1a" in line for line in checkout.asked())


def test_without_a_gpu(checkout: Checkout) -> None:
    (checkout.tools / "nvidia-smi").unlink()
    done = checkout.build()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "set TORCH_CUDA_ARCH_LIST" in done.stderr
    assert checkout.build(TORCH_CUDA_ARCH_LIST="12.1a").returncode == 0


def test_without_network(checkout: Checkout) -> None:
    checkout.name("http://127.0.0.1:9/vllm", checkout.commit)
    done = checkout.build()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "vllm-clone could not reach http://127.0.0.1:9/vllm: this needs a network" in done.stderr


def test_a_commit_that_is_not_there(checkout: Checkout) -> None:
    checkout.name(checkout.source.as_uri(), "0" * 40)
    done = checkout.build()
    assert done.returncode == 2
    assert "vllm-fetch failed" in done.stderr
