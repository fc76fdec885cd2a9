"""A real server where the path of the temporary folder is long; it leaves nothing but compiled code."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from negative_controls.faux_servers import recording
from negative_controls.museum.show import shown_launch

from conformance.profile.profile import load_profile
from conformance.serving.pool import ServerPool

pytestmark = pytest.mark.server


def test_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths of its sockets would be longer than the 107 characters that Linux allows."""
    folder = tmp_path / ("t" * 90)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    profile = load_profile("cpu", "micro-26b-a4b-nvfp4", "smoke")
    servers = ServerPool(profile, recording(tmp_path / "evidence"), launcher=shown_launch)
    try:
        server = servers.plain()
        assert server.alive
        assert list(Path(server.folder).iterdir())  # vLLM's sockets
    finally:
        servers.close()
    assert not Path(server.folder).exists()
    assert [path.name for path in folder.iterdir() if not path.name.startswith("torchinductor")] == []
