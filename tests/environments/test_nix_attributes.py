"""nix/attributes.toml lists every name of nixpkgs that the flake uses, with the file that defines it if it was seen."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable

import pytest
from support.paths import ROOT

LISTED = tomllib.loads((ROOT / "nix/attributes.toml").read_text())
FILES = [ROOT / "flake.nix", *sorted((ROOT / "nix").glob("*.nix"))]


def used(texts: Iterable[str]) -> set[str]:
    """The names that begin with pkgs, lib or cuda (the set of CUDA's packages), without comments."""
    code = "\n".join(re.sub(r"#.*", "", text) for text in texts)
    return set(re.findall(r"(?<![\w./-])(?:pkgs|lib|cuda)(?:\.[A-Za-z_][\w-]*)+", code))


def wrong(rows: dict[str, dict[str, str]]) -> list[str]:
    """The rows that are neither seen in a file of a whole commit, nor said not to be seen."""
    return [
        name
        for name, row in rows.items()
        if row.keys() != ({"seen", "commit"} if row["seen"] else {"seen"})
        or (row["seen"] and not (row["seen"].endswith(".nix") and re.fullmatch("[0-9a-f]{40}", row["commit"])))
    ]


def test_every_name_is_listed_and_every_listed_name_is_used() -> None:
    assert used(path.read_text() for path in FILES) == LISTED.keys()


def test_every_row_says_where_it_was_seen() -> None:
    assert wrong(LISTED) == []


def test_a_file_by_name_is_that_of_the_attribute() -> None:
    by_name = {name: row["seen"] for name, row in LISTED.items() if "/by-name/" in row["seen"]}
    assert by_name
    for name, file in by_name.items():
        package = name.removeprefix("pkgs.")
        assert file == f"pkgs/by-name/{package[:2]}/{package}/package.nix"


@pytest.mark.parametrize("row", [{"seen": "lib"}, {"seen": "", "commit": "0" * 40}, {"seen": "a.nix", "commit": "12"}])
def test_a_row_without_evidence_is_seen(row: dict[str, str]) -> None:
    assert wrong({"pkgs.uv": row}) == ["pkgs.uv"]


def test_a_new_name_is_seen() -> None:
    text = ["a = pkgs.uvv; # pkgs.comment", "b = nixpkgs.lib;", "c = inherit (x) lib; d = ./lib.nix"]
    assert used(text) == {"pkgs.uvv"}
