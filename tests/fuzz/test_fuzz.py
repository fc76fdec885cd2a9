"""The readers of foreign text refuse in their own words, or read; ``scripts/fuzz`` feeds them far more inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.inputs import edited, fails, kept, run
from fuzz.readers import READERS, Reader

UNMENDED = Path(__file__).with_name("unmended.txt")
BROKEN = UNMENDED.read_text().splitlines() if UNMENDED.exists() else []


@pytest.mark.parametrize("name", READERS)
def test_it_reads_or_refuses(name: str) -> None:
    reader = READERS[name]
    assert all(fails(reader, sample) is None for sample in reader.samples)
    assert run(name, 25)[1] == ""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.xfail(strict=True) if name in BROKEN else ()) for name in READERS],
)
def test_what_once_failed_does_so_no_more(name: str) -> None:
    assert [path.name for path in kept(name) if fails(READERS[name], path.read_bytes())] == []


def test_the_samples_are_read() -> None:
    for name, reader in READERS.items():
        for sample in reader.samples:
            if name not in ("manifest", "draft config", "target config", "stream"):
                reader.read(sample)


def test_a_reader_that_fails_is_seen_and_its_input_is_shrunk_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz.inputs.CORPUS", tmp_path)

    def read(raw: bytes) -> None:
        if b"{" in raw:
            raise KeyError("brace")
        if b"}" in raw:
            raise ValueError("refused")

    monkeypatch.setitem(READERS, "faux", Reader(read, (b"abc",), (ValueError,)))
    count, problem = run("faux", 1000)
    assert problem.startswith("KeyError")
    assert count > 1
    (path,) = kept("faux")
    assert b"{" in path.read_bytes()
    assert len(path.read_bytes()) <= len(b"abc{")
    assert fails(READERS["faux"], path.read_bytes())


def test_an_edit_replaces_bytes() -> None:
    assert edited(b"abc", [(4, 1, b"x"), (1, 1, b"")]) == b"xc"
