"""A pair on the Hub, with the Hub played by folders."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest
from huggingface_hub.errors import NotASafetensorsRepoError
from negative_controls.faux_servers.checkpoints import Checkpoints

from conformance.checkpoints import hub as module
from conformance.checkpoints.headers import TOKEN_ORDER, read_headers
from conformance.errors import ObservationError
from conformance.observers.checkpoint import describe
from conformance.profile.facts import load_facts


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoints:
    """Repositories "google/target" and "google/draft"; asking for any weights' file is an error."""
    (tmp_path / "google").mkdir()
    made = Checkpoints(tmp_path / "google", "E2B")

    def download(repository: str, revision: str | None, local_dir: str, allow_patterns: list[str]) -> str:
        assert revision == "abc"
        for path in (tmp_path / repository).iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                assert path.suffix != ".safetensors"
                shutil.copy(path, local_dir)
        return local_dir

    def metadata(repository: str, revision: str | None) -> Any:
        assert revision == "abc"
        if not (tmp_path / repository).is_dir():
            raise NotASafetensorsRepoError(f"'{repository}' is not a safetensors repo.")
        start = data_start(tmp_path / repository / "model.safetensors")
        tensors = {
            name: SimpleNamespace(dtype=it.dtype, shape=list(it.shape), data_offsets=(it.start - start, it.end - start))
            for name, it in read_headers(tmp_path / repository).items()
        }
        return SimpleNamespace(files_metadata={"model.safetensors": SimpleNamespace(tensors=tensors)})

    class FileSystem:
        def open(self, path: str, mode: str, revision: str, block_size: int) -> IO[bytes]:
            assert (mode, revision, block_size > 0) == ("rb", "abc", True)
            return (tmp_path / path).open("rb")

    monkeypatch.setattr(module, "snapshot_download", download)
    monkeypatch.setattr(module, "get_safetensors_metadata", metadata)
    monkeypatch.setattr(module, "HfFileSystem", FileSystem)
    return made


def data_start(path: Path) -> int:
    with path.open("rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little")


def test_a_remote_pair_is_described_as_a_local_one(hub: Checkpoints) -> None:
    (hub.target / "generation_config.json").write_text('{"eos_token_id": [1, 106, 50]}')
    (hub.target / "tokenizer.json").write_text('{"added_tokens": [{"id": 106, "content": "<turn|>"}]}')
    (hub.target / "chat_template.jinja").write_text("{{ messages[0].content }}")
    order = read_headers(hub.draft)[TOKEN_ORDER]
    with order.file.open("r+b") as file:
        file.seek(order.start)
        file.write(np.arange(262144, dtype="<i8")[::-1].tobytes())
    seen = module.document("google/target", "google/draft", "abc", "abc")
    cases = load_facts().chat_template.case
    for role, folder in (("target", hub.target), ("draft", hub.draft)):
        local = describe(folder, cases, hashed=False)
        assert seen[role] == local | {"folder": f"google/{role}"}
    assert seen["draft"]["token_order"] == {"tokens": 262144, "distinct": 262144, "smallest": 0, "largest": 262143}
    assert seen["target"]["special_tokens"] == {"<turn|>": 106}


def test_a_repository_without_weights_or_config_is_an_error(hub: Checkpoints) -> None:
    (hub.target / "config.json").unlink()
    with pytest.raises(ObservationError, match=r"^google/target: .*config.json is missing"):
        module.document("google/target", "google/draft", "abc", "abc")
    shutil.rmtree(hub.target)
    with pytest.raises(ObservationError, match=r"^google/target cannot be read from the Hub: "):
        module.document("google/target", "google/draft", "abc", "abc")
