"""Evidence in one small file: what judging reads, packed as tar with xz.

Judging reads the header, the profile, the observations, beginning and end of the servers' logs, and the journal. The
rest of the folder (weights that a probe saw, benchmarks, reports) is left out, and so are the observations that take
the most room in the archive, as far as the limit requires. The manifest in the archive lists what is left and names the
manifest of the whole folder.
"""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from conformance.errors import ObservationError, UsageError
from conformance.evidence.folder import FORMAT, HEADER, MANIFEST, PROFILE, is_finished, sha256
from conformance.evidence.journal import JOURNAL
from conformance.evidence.redaction import both_ends
from conformance.formats.json_files import parse_json

MOST_OF_A_LOG = 1 << 17  # bytes: half from its beginning (what was loaded), half from its end (why it ended)
OBSERVATIONS = "observations"
LEFT_OUT = "left_out"  # in the archive's manifest: the observations that the limit left no room for


def pack(
    directory: Path,
    into: Path,
    limit: int,
    forget: Callable[[Path], None],
    without: Sequence[str] = (),
    *,
    unfinished: bool = False,
) -> tuple[str, ...]:
    """Write the archive and return the observations that were left out: those of ``without``, and the largest ones.

    ``forget`` gets a copy of the folder without them, and removes from its journal the checks that need them. With
    ``unfinished``, an interrupted run is packed too; its archive does not say when it finished.

    Raises:
        UsageError: the folder is not finished, which ``unfinished`` allows, lacks an observation of ``without``, or
            cannot become as small as the limit.
    """
    if not (unfinished or is_finished(directory)):
        raise UsageError(
            f"{directory} has no {MANIFEST}: finish the run with --resume {directory}, or add --unfinished to pack it."
        )
    copy = into.with_name(f".{into.name}.folder")
    copy_for_judging(directory, copy)
    left_out = list(without)
    largest = _largest_first(copy)
    try:
        for name in without:
            _drop(copy, name)
        if without:
            forget(copy)
        while True:
            _write_manifest(copy, directory / MANIFEST, left_out)
            packed = _tar(copy, directory.name)
            if len(packed) <= limit:
                into.write_bytes(packed)
                return tuple(left_out)
            dropped = next(largest, None)
            if dropped is None:
                raise UsageError(f"{copy.name}: even without observations the archive is larger than {limit} bytes.")
            dropped.unlink()
            left_out.append(dropped.stem)
            forget(copy)
    finally:
        remove(copy)


def unpack(archive: Path, into: Path) -> Path:
    """Unpack an archive, and return the folder of its evidence.

    Raises:
        ObservationError: it is no archive of one folder of evidence.
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise ObservationError(f"{archive} cannot be unpacked ({error}); take it from the repository again") from None
    found = [path.parent for path in into.glob(f"*/{HEADER}")]
    if len(found) != 1:
        raise ObservationError(f"{archive} holds {len(found)} folders of evidence where one is expected")
    return found[0]


def copy_for_judging(directory: Path, copy: Path) -> None:
    """Copy what judging reads; of a log, its beginning and its end."""
    remove(copy)
    for folder in (OBSERVATIONS, "logs"):
        (copy / folder).mkdir(parents=True)
    for name in (HEADER, PROFILE, JOURNAL):
        (copy / name).write_bytes((directory / name).read_bytes())
    for path in directory.glob(f"{OBSERVATIONS}/*.json"):
        (copy / OBSERVATIONS / path.name).write_bytes(path.read_bytes())
    for path in directory.glob("logs/*.log"):
        with path.open("rb") as log:
            (copy / "logs" / path.name).write_bytes(both_ends(log, MOST_OF_A_LOG))


def remove(copy: Path) -> None:
    """Remove such a copy."""
    for path in sorted(copy.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if copy.exists():
        copy.rmdir()


def _drop(copy: Path, name: str) -> None:
    path = copy / OBSERVATIONS / f"{name}.json"
    if not path.exists():
        raise UsageError(f"There is no observation {name} to leave out; see the names in {OBSERVATIONS}.")
    path.unlink()


def _largest_first(copy: Path) -> Iterator[Path]:
    """The observations by the room that they take in the archive; they are compressed only if one is asked for."""
    every = copy.glob(f"{OBSERVATIONS}/*.json")
    yield from sorted(every, key=lambda path: len(lzma.compress(path.read_bytes())), reverse=True)


def _write_manifest(copy: Path, whole: Path, left_out: Iterable[str]) -> None:
    (copy / MANIFEST).unlink(missing_ok=True)
    files = {str(path.relative_to(copy)): sha256(path) for path in sorted(copy.rglob("*")) if path.is_file()}
    finished = whole.is_file()
    about = {"finished": parse_json(whole.read_bytes())["finished"], "packed_from": sha256(whole)} if finished else {}
    document = {"format": FORMAT, **about, LEFT_OUT: sorted(left_out), "files": files}
    (copy / MANIFEST).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _tar(copy: Path, name: str) -> bytes:
    """The same folder gives the same bytes: no times, owners or modes of this machine."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz", preset=9) as tar:
        for path in sorted(copy.rglob("*")):
            tar.add(path, f"{name}/{path.relative_to(copy)}", recursive=False, filter=_anonymous)
    return out.getvalue()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    owner: dict[str, Any] = {"uid": 0, "gid": 0, "uname": "", "gname": "", "mtime": 0}
    return member.replace(**owner, mode=0o755 if member.isdir() else 0o644, deep=False)
