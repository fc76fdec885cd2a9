"""A headless Chromium for the tests, the host's or Debian's, controlled by the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from websockets.sync.client import ClientConnection, connect

from support.debian import lacking, libraries, settle, unpack

PACKAGES = ("chromium-headless-shell", "fonts-liberation", "fonts-dejavu-core")
AXE = Path(__file__).parent / "axe.txt"
SECONDS = 60  # to wait for an answer
LISTENING = re.compile(r"DevTools listening on (\S+)")
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><dir>{root}/usr/share/fonts</dir><cachedir>{root}/cache</cachedir>
<alias><family>system-ui</family><prefer><family>Liberation Sans</family></prefer></alias>
<alias><family>monospace</family><prefer><family>Liberation Mono</family></prefer></alias></fontconfig>
"""


class Page:
    """A tab with one document; ``complaints`` has what its console, its scripts and its network requests reported."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._session: dict[str, str] = {}
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask and wait for the answer; events that come before it are recorded."""
        self._number += 1
        question = {"id": self._number, "method": method, "params": parameters, **self._session}
        self._socket.send(json.dumps(question))
        while (message := json.loads(self._socket.recv(SECONDS))).get("id") != self._number:
            self._take(message)
        assert "error" not in message, f"{method}: {message['error']}"
        answer: dict[str, Any] = message["result"]
        return answer

    def show(self, path: Path, width: int, scheme: str) -> None:
        """Load a file with this width and this preferred colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.as_uri())
        self.value("new Promise(done => document.readyState == 'complete' ? done(1) : addEventListener('load', done))")

    def value(self, expression: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, *, whole: bool = False) -> bytes:
        """The window, or the whole page, as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def paper(self) -> bytes:
        """The printed page as a PDF."""
        return base64.b64decode(self.call("Page.printToPDF")["data"])

    def _take(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded":
                self.complaints.append(json.dumps(parameters))
            case "Network.requestWillBeSent" if not parameters["request"]["url"].startswith(("file:", "data:")):
                self.complaints.append(f"asks for {parameters['request']['url']}")


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A tab of a browser that ends with the block; all its files are in the folder."""
    program, own = _program(folder)
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--hide-scrollbars")
    command = [program, *options, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    environment = os.environ | own | {"HOME": str(folder)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            with connect(_address(process.stderr), max_size=None, proxy=None) as socket:
                yield Page(socket)
        finally:
            process.kill()


def _program(folder: Path) -> tuple[str, dict[str, str]]:
    """The host's own Chromium, or Debian's, and the variables that it needs."""
    if program := shutil.which("chromium-headless-shell") or shutil.which("chromium"):
        return program, {}
    root = unpack(folder / "debian", *PACKAGES)
    unpacked = root / "usr/lib/chromium/chromium-headless-shell"
    settle(root, unpacked)
    (folder / "fonts.conf").write_text(FONTS.format(root=root))
    # Some of its libraries load others from absolute paths only, and these paths belong to the host's system here.
    path = f"{libraries(root)}:{libraries(root) / 'pulseaudio'}"
    return str(unpacked), {"LD_LIBRARY_PATH": path, "FONTCONFIG_FILE": str(folder / "fonts.conf")}


def _address(log: IO[str]) -> str:
    said = []
    for line in log:
        if found := LISTENING.search(line):
            return found[1]
        said.append(line)
    raise AssertionError(f"Chromium did not start: {''.join(said)}")


def axe(folder: Path) -> str:
    """The source of axe-core, from its wheel; skips if the wheel cannot be fetched, but fails in CI."""
    words = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--quiet", "-d", str(folder), "-r", str(AXE))
    done = subprocess.run([sys.executable, "-m", "pip", "download", *words], capture_output=True, text=True)
    if done.returncode:
        lacking(f"axe-core is not in reach: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).read("axe_playwright_python/axe.min.js").decode()
