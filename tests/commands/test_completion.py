"""Completion: what real shells offer once they have read the script."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from conformance import FIXTURES
from conformance.commands.completion import SHELLS
from conformance.commands.main import main
from conformance.profile.profile import LEVELS

HARDWARE, PAIRS = (sorted(path.stem for path in (FIXTURES / name).glob("*.toml")) for name in ("hardware", "models"))
ASK = 'source "$1"; shift; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _shtab_qualify; printf "%s\\n" "${COMPREPLY[@]}"'
SECONDS = 60
QUESTIONS = [
    (["com"], ["combine", "compare", "completion"]),
    (["--hardw"], ["--hardware"]),  # the default command's options stand without it
    (["qualify", "--hardw"], ["--hardware"]),
    (["rejudge", "--cert"], ["--certify"]),
    (["--hardware", "h100"], [name for name in HARDWARE if name.startswith("h100")]),
    (["--hardware", "cpu", "--pair", "gemma-4-31b"], [name for name in PAIRS if name.startswith("gemma-4-31b")]),
    (["qualify", "--level", ""], sorted(LEVELS)),
    (["--hardware", "my-"], ["my-board.toml"]),
    (["compare", "run-1", "run-"], ["run-1", "run-2"]),
    (["sign", "run-1", "--key", "id_"], ["id_ed25519"]),
    (["completion", ""], sorted(SHELLS)),
]
asked = pytest.mark.parametrize(("words", "offered"), QUESTIONS)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every shell's script, and with files to choose from."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        with (folder / shell).open("w") as file, pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdout", file)
            assert main(["completion", shell]) == 0
    for name in ("my-board.toml", "my-notes.txt", "run-notes.txt", "id_ed25519"):
        (folder / name).touch()
    for name in ("run-1", "run-2"):
        (folder / name).mkdir()
    return folder


@asked
def test_bash(scripts: Path, words: list[str], offered: list[str]) -> None:
    command = ["bash", "--norc", "-c", ASK, "bash", scripts / "bash", "qualify", *words]
    done = subprocess.run(command, cwd=scripts, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == offered
    assert done.stderr == ""


@asked
def test_fish(scripts: Path, words: list[str], offered: list[str]) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed here")
    command = ["fish", "--no-config", "-c", "source $argv[1]; complete -C $argv[2]", str(scripts / "fish")]
    line = f"scripts/qualify {' '.join(words)}"
    done = subprocess.run([*command, line], cwd=scripts, capture_output=True, text=True, check=True)
    assert sorted(each.partition("\t")[0].rstrip("/") for each in done.stdout.splitlines()) == offered


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("qualify comb", "qualify combine "),
        ("scripts/qualify --hardware h100-small-", "scripts/qualify --hardware h100-small-eager "),
        ("qualify --pair gemma-4-31b-n", "qualify --pair gemma-4-31b-nvfp4 "),
        ("qualify rejudge run-1", "qualify rejudge run-1/"),
        ("qualify --hardware my-", "qualify --hardware my-board.toml "),
    ],
)
def test_zsh(scripts: Path, typed: str, completed: str) -> None:
    """It completes for nobody but a terminal."""
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed here")
    ours, theirs = pty.openpty()
    (scripts / "_qualify").write_text((scripts / "zsh").read_text())
    setup = "PS1=; fpath=($PWD $fpath); autoload -Uz compinit && compinit -u -D && echo re''ady"
    with subprocess.Popen(
        ["zsh", "-f", "-i"],
        cwd=scripts,
        env=os.environ | {"TERM": "dumb", "COLUMNS": "200"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as shell:
        try:
            os.write(ours, f"{setup}\n".encode())
            assert "ready" in read_until(ours, "ready")
            os.write(ours, f"{typed}\t".encode())
            assert completed in read_until(ours, completed)
        finally:
            shell.kill()
            os.close(theirs)
            os.close(ours)


def read_until(terminal: int, wanted: str) -> str:
    """Everything that was written there until this was, or for too long."""
    said, deadline = "", time.monotonic() + SECONDS
    os.set_blocking(terminal, False)
    while wanted not in said and time.monotonic() < deadline:
        try:
            said += os.read(terminal, 65536).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.05)
    return said


def test_an_unknown_shell_is_bad_input() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["completion", "dos"])
    assert ended.value.code == 2
