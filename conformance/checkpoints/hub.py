"""Describes a pair on the Hub without its weights: it downloads some megabytes instead of sixty gigabytes.

``document`` returns the document of the ``checkpoint`` observer without the hashes of the draft's bytes, so that a pair
can be compared with the facts before it is downloaded::

    seen = Published.of(document("google/gemma-4-31B-it", "google/gemma-4-31B-it-assistant"), load_facts())
    judge(test_draft_is_the_published_one, {"published": seen})

This is not an observation: a verdict about a server needs the files that the server loads.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfFileSystem, get_safetensors_metadata, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    NotASafetensorsRepoError,
    SafetensorsParsingError,
)

from conformance.checkpoints.headers import TOKEN_ORDER, Damaged
from conformance.checkpoints.small_files import small_files, token_order
from conformance.errors import ObservationError
from conformance.profile.facts import Case, load_facts

SMALL_FILES = ("*config.json", "tokenizer.json", "chat_template.*")
_UNREACHABLE = (HfHubHTTPError, LocalEntryNotFoundError, NotASafetensorsRepoError, SafetensorsParsingError, OSError)


def document(
    target: str, draft: str, target_revision: str | None = None, draft_revision: str | None = None
) -> dict[str, Any]:
    """Both checkpoints of a pair of Hub repositories ("owner/name").

    Raises:
        ObservationError: a repository cannot be read.
    """
    cases = load_facts().chat_template.case
    return {
        "target": describe(target, target_revision, cases),
        "draft": describe(draft, draft_revision, cases),
    }


def describe(repository: str, revision: str | None, cases: tuple[Case, ...]) -> dict[str, Any]:
    """One checkpoint: its small files by an ordinary download, its headers and its token order by range requests.

    Raises:
        ObservationError: the repository cannot be read.
    """
    try:
        # The cache is not used, because a snapshot without weights would look like the whole checkpoint there.
        with TemporaryDirectory() as folder:
            snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=list(SMALL_FILES))
            told = small_files(Path(folder), cases)
        files = get_safetensors_metadata(repository, revision=revision).files_metadata
        order = None
        for file, header in files.items():
            if held := header.tensors.get(TOKEN_ORDER):
                order = token_order(read_range(repository, revision, file, *held.data_offsets), held.dtype)
    except Damaged as damage:
        raise ObservationError(f"{repository}: {damage}") from None
    except _UNREACHABLE as error:
        raise ObservationError(f"{repository} cannot be read from the Hub: {error}") from None
    tensors = {
        name: {"dtype": tensor.dtype, "shape": list(tensor.shape)}
        for header in files.values()
        for name, tensor in header.tensors.items()
    }
    return told | {"folder": repository, "token_order": order, "tensors": tensors}


def read_range(repository: str, revision: str | None, file: str, begin: int, end: int) -> bytes:
    """The bytes of one tensor, by its offsets after the header of a remote safetensors file."""
    with HfFileSystem().open(f"{repository}/{file}", "rb", revision=revision, block_size=1 << 16) as stream:
        length = int.from_bytes(stream.read(8), "little")
        stream.seek(8 + length + begin)
        return bytes(stream.read(end - begin))
