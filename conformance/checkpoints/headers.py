"""Reads checkpoints without torch: their folders, JSON files, and the headers of safetensors files."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub  # loads its parts on first use
import numpy as np
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from conformance.errors import NotHere, UsageError
from conformance.formats.json_files import parse_json
from conformance.profile.profile import Pair

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SAMPLES, SAMPLED = 64, 1 << 20  # blocks of a large file that its sampled hash reads, and bytes of each
_LONGEST_NAME = 255  # bytes, of a file on Linux
TOKEN_ORDER = "masked_embedding.token_ordering"  # in drafts with ordered embeddings


class Damaged(Exception):
    """A checkpoint cannot be read. The message is a sentence that begins with the file."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file: its dtype in the file ("BF16"), its shape, and the position of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    def sha256(self) -> str:
        """Hex SHA-256 of the tensor's bytes."""
        digest = hashlib.sha256()
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            left = self.end - self.start
            while left and (block := stream.read(min(left, 1 << 24))):
                digest.update(block)
                left -= len(block)
        return digest.hexdigest()

    def shares(self, workers: int) -> tuple[list[str], ...]:
        """The SHA-256 of the equal shares of a matrix among workers: by rows, then by columns.

        The list is empty if the matrix cannot be divided evenly in that direction.
        """
        whole = np.frombuffer(self.read(), dtype="u1").reshape(self.shape[0], -1)
        sides = zip(self.shape, (0, 1), strict=True)
        return tuple(
            [hashlib.sha256(part.tobytes()).hexdigest() for part in np.split(whole, workers, axis)]
            if size % workers == 0
            else []
            for size, axis in sides
        )

    def read(self) -> bytes:
        """The tensor's bytes."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.end - self.start)


def target_folder(pair: Pair) -> Path:
    """The folder of the pair's target on this machine.

    Raises:
        NotHere: the checkpoint is not on this machine.
        UsageError: the key names neither a folder nor a repository.
    """
    return _locate(pair, "target", pair.target, pair.target_revision)


def draft_folder(pair: Pair) -> Path:
    """The folder of the pair's draft on this machine.

    Raises:
        NotHere: the checkpoint is not on this machine.
        UsageError: the key names neither a folder nor a repository.
    """
    return _locate(pair, "draft", pair.draft, pair.draft_revision)


def _locate(pair: Pair, role: str, source: str, revision: str | None) -> Path:
    """A folder as it is, or the folder of a Hub repository in the local cache.

    Raises:
        NotHere: the checkpoint is not on this machine; the sentence says how to get it.
        UsageError: the key names neither a folder nor a repository.
    """
    said = f'{Path(pair.home) / pair.name}.toml: key "{role}" is "{source}"'
    if source.startswith((".", "/")):
        folder = (Path(pair.home) / source).resolve()
        if not folder.is_dir():
            raise NotHere(f"{said}, but there is no folder {folder}; put the checkpoint there or change the key.")
        return folder
    try:
        return Path(huggingface_hub.snapshot_download(source, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        command = f"hf download {source}" + (f" --revision {revision}" if revision else "")
        raise NotHere(f"{said}, which is not in the local Hugging Face cache; run: {command}") from None
    except HFValidationError:
        mend = 'write a folder that starts with "./" or "/", or a repository "owner/name"'
        raise UsageError(f"{said}; {mend}.") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint.

    Raises:
        Damaged: the file is missing or holds no JSON object.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None
    except ValueError as error:
        raise Damaged(f"{path} is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path} holds no JSON object")
    return content


def read_optional_json(path: Path) -> dict[str, Any] | None:
    """A JSON object of a checkpoint, or None if there is no such file.

    Raises:
        Damaged: the file holds no JSON object.
    """
    return read_json(path) if path.exists() else None


def file_hashes(folder: Path, whole_up_to: int | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """The hex SHA-256 of every file directly in a checkpoint's folder, by name; several are read at a time.

    Files of more than ``whole_up_to`` bytes are in the second mapping instead, each with its ``sampled_hash``.
    """
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    large = {name for name, size in sizes.items() if whole_up_to is not None and size > whole_up_to}

    def digest(name: str) -> str:
        return (sampled_hash if name in large else _file_hash)(folder / name)

    with ThreadPoolExecutor() as pool:
        found = dict(zip(sorted(sizes), pool.map(digest, sorted(sizes)), strict=True))
    return (
        {name: value for name, value in found.items() if name not in large},
        {name: value for name, value in found.items() if name in large},
    )


def sampled_hash(path: Path) -> str:
    """The hex SHA-256 of a file's size, its first ``SAMPLED`` bytes, and blocks of that size spread to its end.

    It costs ``SAMPLES`` reads and recognises another file. It does not show that every byte is the same.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\n".encode())
    last = max(0, size - SAMPLED)
    with path.open("rb") as stream:
        for number in range(SAMPLES):
            stream.seek(last * number // (SAMPLES - 1))
            digest.update(stream.read(SAMPLED))
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_headers(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, from one file or from the files of its index.

    Raises:
        Damaged: a file is missing or broken.
    """
    if not (folder / INDEX).exists():
        return _read_header(folder / SINGLE)
    placed = read_json(folder / INDEX).get("weight_map")
    if not isinstance(placed, dict):
        raise Damaged(f"{folder / INDEX} has no weight_map")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(map(str, placed.values()))):
        if Path(name).name != name or len(name.encode(errors="surrogatepass")) > _LONGEST_NAME:
            raise Damaged(f"{folder / INDEX} names {name[:80]!r}, which is not a file of its folder")
        tensors |= _read_header(folder / name)
    for name, file in placed.items():
        if name not in tensors or tensors[name].file.name != file:
            raise Damaged(f"{folder / file} does not hold tensor {name}, but {INDEX} names it there")
    return tensors


def _read_header(path: Path) -> dict[str, Tensor]:
    """The header of one file: eight bytes of length, then JSON: name -> dtype, shape, data_offsets.

    Raises:
        Damaged: the file is missing or broken.
    """
    if not path.is_file():
        raise Damaged(f"{path} is missing")
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise Damaged(f"{path} is not a safetensors file, or is cut short: it has {size} bytes")
        raw = stream.read(length)
    try:
        return _tensors(path, parse_json(raw), 8 + length, size)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path} has a broken safetensors header ({type(error).__name__}: {error})") from None


def _tensors(path: Path, header: dict[str, Any], data: int, size: int) -> dict[str, Tensor]:
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = map(int, entry["data_offsets"])
        if not 0 <= begin <= end:
            raise ValueError(f"{name} lies at bytes {begin} to {end}")
        if data + end > size:
            raise Damaged(f"{path} is cut short: {name} ends at byte {data + end} of {size}")
        tensors[name] = Tensor(str(entry["dtype"]), tuple(entry["shape"]), path, data + begin, data + end)
    return tensors


def weights_sha256(folder: Path) -> str:
    """The SHA-256 of all weight files of a checkpoint, in the order of their names.

    Raises:
        Damaged: a file is missing or broken.
    """
    digest = hashlib.sha256()
    for path in sorted({tensor.file for tensor in read_headers(folder).values()}):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
