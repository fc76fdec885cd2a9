"""Inputs for a reader: samples with a few edits, and a corpus of inputs that once failed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from fuzz.readers import READERS, Reader

CORPUS = Path(__file__).with_name("corpus")
WORDS = (
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"\r", b"\0", b"\\", b"\\u0000", b"\\ud800", b"\xff", b"\xc3"),
    *(
        b"null",
        b"true",
        b"{}",
        b"[]",
        b'""',
        b"0",
        b"-1",
        b"1e999",
        b"NaN",
        b"Infinity",
        b"9" * 30,
        b"0.5",
        b"[[" * 3000,
    ),
    *(b"data: ", b"[DONE]", b"# TYPE", b"position", b"data_offsets", b"quantization_config", b"../", b"=", b"'", b"#"),
    *("é\u2028\u0085".encode(), "\U0001f600".encode(), b" ", b"\xe2\x80", b"hf_abcdefghijklmnopqrst", b"--api-key "),
)


def edited(sample: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """The sample with some of its bytes replaced: each edit has a place, a number of bytes and the new ones."""
    for place, length, new in edits:
        start = place % (len(sample) + 1)
        sample = sample[:start] + new + sample[start + length :]
    return sample


def inputs_of(reader: Reader) -> st.SearchStrategy[bytes]:
    """Samples with up to six edits."""
    edit = st.tuples(st.integers(0, 1 << 16), st.integers(0, 24), st.sampled_from(WORDS) | st.binary(max_size=4))
    return st.builds(edited, st.sampled_from(reader.samples), st.lists(edit, max_size=6))


def fails(reader: Reader, raw: bytes) -> BaseException | None:
    """What the reader raises instead of an error that it may raise."""
    try:
        reader.read(raw)
    except reader.refuses:
        return None
    except Exception as error:
        return error
    return None


def kept(name: str) -> list[Path]:
    """The inputs on which this reader once failed."""
    return sorted((CORPUS / name.replace(" ", "_")).glob("*"))


def run(name: str, count: int, keep: Path | None = None, start: int | None = None) -> tuple[int, str]:
    """Feed so many inputs; return how many were read, and the shrunk failure if there is one.

    The shortest input that fails is kept in the folder ``keep`` from the moment when it is found.
    """
    reader, read, shortest = READERS[name], 0, Shortest((keep or CORPUS) / name.replace(" ", "_"))
    quick = settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        print_blob=False,
    )

    @quick
    @given(inputs_of(reader))
    def feed(raw: bytes) -> None:
        nonlocal read
        read += 1
        if error := fails(reader, raw):
            shortest.take(raw)
            raise error

    try:
        (feed if start is None else seed(start)(feed))()
    except HypothesisException:
        raise
    except Exception as error:
        return read, f"{type(error).__name__}: {error} ({shortest.name()})"
    return read, ""


@dataclass
class Shortest:
    """Keeps the shortest input on which a reader fails in a file, whose name says what it holds when it is the last."""

    folder: Path
    raw: bytes | None = None

    @property
    def path(self) -> Path:
        return self.folder / f"shrinking-{os.getpid()}"

    def take(self, raw: bytes) -> None:
        """Keep this input if none was shorter."""
        if self.raw is None or len(raw) <= len(self.raw):
            self.raw = raw
            self.folder.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(raw)

    def name(self) -> Path:
        """Give the file its last name."""
        return self.path.replace(self.folder / hashlib.sha256(self.raw or b"").hexdigest()[:12])
