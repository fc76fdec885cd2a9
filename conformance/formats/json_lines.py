"""Lines of JSON Lines and of event streams: they end at LF alone.

``str.splitlines`` and the clients' ``iter_lines`` also end a line at U+2028, U+2029 and U+0085, which JSON leaves as
they are inside of a string.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, each with its number from 1 on."""
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def lines_of_stream(chunks: Iterable[bytes]) -> Iterator[str]:
    """Each line of a stream of UTF-8 as soon as it is whole; what follows the last LF comes at the end."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode().removesuffix("\r")
    if rest:
        yield rest.decode()
