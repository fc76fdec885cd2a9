"""scripts/join_image and the development container: the suite goes beside the image's vLLM and leaves it as it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from support.paths import ROOT

PYTHON = """#!/bin/sh
echo "$*" >>"$ASKED"
case "$*" in *"$FAILS"*) [ -z "$FAILS" ] || exit 1 ;; esac
case "$*" in "-m venv"*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;; esac
"""
DEVCONTAINER = json.loads((ROOT / ".devcontainer/image-under-test/devcontainer.json").read_text())


def join(tmp_path: Path, fails: str = "") -> subprocess.CompletedProcess[str]:
    python = tmp_path / "python3"
    python.write_text(PYTHON)
    python.chmod(0o755)
    own = {"PYTHON": str(python), "ASKED": str(tmp_path / "asked"), "FAILS": fails}
    command = [ROOT / "scripts/join_image", tmp_path / "suite"]
    return subprocess.run(command, env=os.environ | own, capture_output=True, text=True)


def test_it_sees_the_packages_of_the_image_and_installs_no_other_vllm(tmp_path: Path) -> None:
    done = join(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    _, venv, suite, own = (tmp_path / "asked").read_text().splitlines()
    assert "--system-site-packages" in venv
    assert suite.endswith("install --quiet --requirement envs/suite.in")
    assert own.endswith("--no-deps --editable .")
    asked = (ROOT / "envs/suite.in").read_text()
    assert not re.search(r"^(vllm|torch|transformers)\b", asked, re.MULTILINE)


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("find_spec", "has no vllm: run this inside an image of vLLM"),
        ("-m venv", "install python3-venv"),
        ("--requirement", "set PIP_INDEX_URL"),
        ("--editable", "pip could not install the checkout"),
    ],
)
def test_what_fails_is_one_sentence(tmp_path: Path, fails: str, said: str) -> None:
    done = join(tmp_path, fails)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def test_the_development_container_starts_from_the_image_of_the_user() -> None:
    assert DEVCONTAINER["image"] == "${localEnv:CONFORMANCE_IMAGE}"
    script, folder = DEVCONTAINER["postCreateCommand"].split()
    assert (ROOT / script).is_file()
    assert DEVCONTAINER["remoteEnv"]["PATH"].startswith(f"{folder}/bin:")
    documented = (ROOT / "docs/containers.md").read_text()
    for option in DEVCONTAINER["runArgs"]:
        assert option.replace("=", " ") in documented
