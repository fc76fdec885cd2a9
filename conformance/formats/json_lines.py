"""Reads the lines of JSON Lines and of event streams, which end only at LF.

``str.splitlines`` and the clients' ``iter_lines`` also end a line at U+2028, U+2029 and U+0085, which JSON allows in
strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers starting at 1."""
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def lines_of_stream(chunks: Iterable[bytes]) -> Iterator[str]:
    """Each line of a UTF-8 stream as soon as it is complete; the text after the last LF comes at the end."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode().removesuffix("\r")
    if rest:
        yield rest.decode()
