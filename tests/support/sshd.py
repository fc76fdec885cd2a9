"""An OpenSSH server on loopback for the tests, the host's or Debian's, with keys that are thrown away."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conformance.serving.executors import free_port
from support.debian import lacking, libraries, settle, unpack

SECONDS = 20
SERVER = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
AcceptEnv PYTHONPATH
"""
SPLIT = "SshdSessionPath {parts}/sshd-session\nSshdAuthPath {parts}/sshd-auth\n"  # since OpenSSH 10
CLIENT = """
Host faux
    HostName 127.0.0.1
    Port {port}
    IdentityFile {folder}/client
    IdentitiesOnly yes
    SendEnv PYTHONPATH
    UserKnownHostsFile {folder}/known_hosts
"""
# As root, sshd needs a user and a folder of its own. It gets both in a mount namespace that nobody else sees.
PRIVATE = """
mount --bind "$1/passwd" /etc/passwd && mount -t tmpfs none /run && mkdir /run/sshd && shift && exec "$@"
"""


@contextmanager
def sshd(folder: Path) -> Iterator[Path]:
    """A server that the user of the tests may log in to; gives the folder with an ``ssh`` that knows it as "faux"."""
    server, split = _program(folder / "debian")
    port = free_port()
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(SERVER.format(port=port, folder=folder) + split)
    (folder / "config").write_text(CLIENT.format(port=port, folder=folder))
    (folder / "bin").mkdir()
    (folder / "bin/ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    (folder / "bin/ssh").chmod(0o755)
    command = [str(server), "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(_as_it_wants(command, folder), stderr=log)
    try:
        _wait(process, port, folder / "log")
        yield folder / "bin"
    finally:
        process.terminate()
        process.wait()


def _program(folder: Path) -> tuple[Path, str]:
    """The host's own sshd, or Debian's, and the lines of its configuration that name its parts."""
    if found := shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"):
        return Path(found), ""
    root = unpack(folder, "openssh-server")
    server, parts = root / "usr/sbin/sshd", root / "usr/lib/openssh"
    for program in (server, parts / "sshd-session", parts / "sshd-auth"):
        settle(root, program)
    assert libraries(root).is_dir()
    return server, SPLIT.format(parts=parts)


def _as_it_wants(command: list[str], folder: Path) -> list[str]:
    if os.geteuid() != 0:
        return command
    known = Path("/etc/passwd").read_text()
    own = "" if "sshd" in {each.pw_name for each in pwd.getpwall()} else "sshd:x:65533:65533::/:/bin/false\n"
    (folder / "passwd").write_text(known + own)
    private = ["unshare", "--mount", "sh", "-c", PRIVATE, "sh", str(folder)]
    if subprocess.run([*private, "true"], capture_output=True).returncode:
        lacking("root may not make a mount namespace here, which Debian's sshd needs to be run by root")
    return [*private, *command]


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as knocking:
            if knocking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"sshd does not listen: {log.read_text()}")
