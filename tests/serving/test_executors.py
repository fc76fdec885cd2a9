"""Ports for servers: nobody else gets them by accident."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from conformance.serving import executors
from conformance.serving.executors import HOST, free_port


def test_no_other_process_gets_the_port_of_a_server() -> None:
    """An outgoing connection of another process took a server's port between its choice and the server's start."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert first > executors._LOWEST_PORT
    assert not {free_port() for _ in range(100)} & set(range(first, last + 1))


def test_a_port_that_is_taken_is_not_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port = taken.getsockname()[1]
        (tmp_path / "range").write_text(f"{port + 2}\t60999\n")
        monkeypatch.setattr(executors, "_EPHEMERAL", tmp_path / "range")
        monkeypatch.setattr(executors, "_LOWEST_PORT", port)
        assert {free_port() for _ in range(10)} == {port + 1}


@pytest.mark.parametrize("said", ["1024\t65535\n", None])
def test_where_all_ports_are_ephemeral_the_kernel_chooses(
    said: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if said:
        (tmp_path / "range").write_text(said)
    monkeypatch.setattr(executors, "_EPHEMERAL", tmp_path / "range")
    assert free_port() > 0
