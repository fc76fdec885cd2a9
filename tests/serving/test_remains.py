"""What a killed server leaves, and that nothing else is removed."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.serving import remains


@pytest.fixture
def segment() -> Iterator[Path]:
    """Shared memory as vLLM makes it."""
    path = remains.SHARED / f"vllm_dist_{os.getpid()}-test"
    path.write_bytes(b"x")
    yield path
    path.unlink(missing_ok=True)


def test_what_nobody_uses_is_removed(tmp_path: Path, segment: Path) -> None:
    folder = tmp_path / "conformance-1"
    folder.mkdir()
    (folder / "socket").touch()
    remains.remove(str(folder), time.time())
    assert not folder.exists()
    assert not segment.exists()


def test_what_somebody_uses_or_had_before_is_kept(segment: Path) -> None:
    with segment.open("rb"):
        remains.remove("", time.time())
        assert segment.exists()
    remains.remove("", time.time() + 60)
    assert segment.exists()
    remains.remove("", None)
    assert segment.exists()


@pytest.mark.parametrize(
    ("environment", "parent", "compiled"),
    [
        ({"TMPDIR": "/var"}, "/var", "/var/torchinductor_"),
        ({"TMPDIR": "/var", "VLLM_RPC_BASE_PATH": "/usr"}, "/usr", "/var/torchinductor_"),
        ({"TMPDIR": "/no/such/folder"}, tempfile.gettempdir(), f"{tempfile.gettempdir()}/torchinductor_"),
        ({"TORCHINDUCTOR_CACHE_DIR": "/c"}, tempfile.gettempdir(), "/c"),
    ],
)
def test_a_server_has_its_own_folder_and_keeps_compiled_code(
    environment: dict[str, str], parent: str, compiled: str
) -> None:
    folder = remains.name_folder(environment)
    assert str(folder.parent) == parent
    given = remains.settings(folder, environment)
    assert given["TMPDIR"] == given["VLLM_RPC_BASE_PATH"] == str(folder)
    assert given["TORCHINDUCTOR_CACHE_DIR"].startswith(compiled)


def test_the_usual_place_of_compiled_code_is_torchs_own() -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    assert remains.settings(Path("/x"), {})["TORCHINDUCTOR_CACHE_DIR"] == default_cache_dir()
