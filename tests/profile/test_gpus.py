"""The GPU that is here, by a made-up NVML, and the hardware profile that it is taken for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.nvml import A100_40, B300, GB10, H100, H200, PRO_6000, RTX_5090, VOLTA, Card, nvml

from conformance.errors import UsageError
from conformance.evidence.folder import read_header
from conformance.profile import gpus
from conformance.profile.gpus import Seen, hardware_of, look, shared_bytes
from conformance.profile.profile import every_hardware
from conformance.run.session import Options, open_session


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    """Puts cards into this machine, which has the memory of a GB10, and looks."""
    (tmp_path / "meminfo").write_text("MemTotal:       125370736 kB\nMemFree:        1 kB\n")
    monkeypatch.setattr(gpus, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.delenv(gpus.VISIBLE, raising=False)

    def look_at(*cards: Card, **errors: str) -> Seen:
        monkeypatch.setitem(sys.modules, "pynvml", nvml(*cards, **errors))
        return look()

    return look_at


Here = Callable[..., Seen]


@pytest.mark.parametrize(
    ("cards", "name"),
    [
        ([H100], "h100"),
        ([H200], "h200"),
        ([B300], "b300"),
        ([PRO_6000], "rtx-pro-6000"),
        ([RTX_5090], "rtx-5090"),
        ([GB10], "gb10"),
        ([H100, H100], "h100"),
        ([], "cpu"),
    ],
)
def test_a_gpu_is_taken_for_its_profile(here: Here, cards: list[Card], name: str) -> None:
    assert hardware_of(here(*cards), every_hardware()) == name


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        ("1", [H200]),
        ("2, 0", [B300, H100]),
        ("GPU-2a5b-4e67", [B300]),
        ("MIG-7", [H100]),
        ("1,-1,0", [H200]),
        ("", []),
        ("-1", []),
    ],
)
def test_a_shared_hosts_other_gpus_are_no_concern(
    here: Here, monkeypatch: pytest.MonkeyPatch, visible: str, seen: list[Card]
) -> None:
    here()
    monkeypatch.setenv(gpus.VISIBLE, visible)
    found = here(H100, H200, B300)
    assert [gpu.name for gpu in found.gpus] == [card.name for card in seen]
    assert found.why_none == ("" if seen else f"none: CUDA_VISIBLE_DEVICES is '{visible}'")


def test_what_nvml_tells_is_kept(here: Here) -> None:
    (gpu,) = here(H100).gpus
    assert (gpu.sm, gpu.driver, gpu.cuda, gpu.power_limit_w, gpu.sm_clock_mhz) == (90, "590.44.01", "13.1", 700, 1980)
    assert str(gpu) == "NVIDIA H100 80GB HBM3 (SM 90, 80 GiB of its own)"


def test_what_it_does_not_support_is_unknown_and_its_memory_the_machines(here: Here) -> None:
    (gpu,) = here(GB10).gpus
    assert gpu.power_limit_w is None
    assert str(gpu) == "NVIDIA GB10 (SM 121, 120 GiB shared with the CPU)"


@pytest.mark.parametrize("error", ["LibraryNotFound", "DriverNotLoaded"])
def test_without_a_driver_it_is_a_cpu(here: Here, error: str) -> None:
    seen = here(H100, fails=error)
    assert str(seen) == "none: there is no NVIDIA driver"
    assert hardware_of(seen, every_hardware()) == "cpu"


def test_without_the_library_it_is_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert str(look()) == "none looked for: nvidia-ml-py is not installed"
    assert hardware_of(look(), every_hardware()) == "cpu"


@pytest.mark.parametrize(
    ("cards", "errors", "sentence"),
    [
        (
            [H100, H200],
            {},
            r"this machine has GPUs of several kinds, NVIDIA H100 .*; NVIDIA H200 .*; choose by --hardware",
        ),
        ([A100_40], {}, r"A100-SXM4-40GB \(SM 80, 40 GiB of its own\), matches no profile; .* one of ampere, or"),
        ([VOLTA], {}, r"V100.* matches no profile; choose by --hardware one of ampere, b200, .*, thor, or"),
        ([H100], {"fails": "Unknown"}, r"^NVML does not answer: Unknown; choose by --hardware one of ampere"),
        ([H100], {"late": "Unknown"}, r"^NVML does not answer: Unknown; choose by --hardware one of ampere"),
    ],
)
def test_what_is_not_clear_is_one_sentence(
    here: Here, cards: list[Card], errors: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        hardware_of(here(*cards, **errors), every_hardware())


def test_two_profiles_of_one_gpu_are_not_clear(here: Here) -> None:
    known = every_hardware()
    twin = next(replace(each, name="twin") for each in known if each.name == "h100")
    with pytest.raises(UsageError, match=r"matches more than one profile; choose by --hardware one of h100, .*, twin"):
        hardware_of(here(H100), [*known, twin])


def test_shared_memory_is_the_machines(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\n")
    with pytest.raises(ValueError, match="has no MemTotal"):
        shared_bytes(tmp_path / "meminfo")


def test_the_header_has_both_what_was_asked_and_what_is_here(here: Here, tmp_path: Path) -> None:
    here(H100)
    detected = open_session(Options(level="static"), tmp_path)
    assert detected.profile.hardware.name == "h100"
    asked = open_session(Options(level="static", hardware="cpu"), tmp_path)
    asked.begin()
    header = read_header(asked.evidence.directory)
    assert (header.hardware, header.hardware_asked) == ("cpu", "cpu")
    assert header.hardware_detected == "NVIDIA H100 80GB HBM3 (SM 90, 80 GiB of its own)"
    here(H100, fails="Unknown")
    with pytest.raises(UsageError, match="NVML does not answer"):
        open_session(Options(level="static"), tmp_path)
    assert open_session(Options(level="static", hardware="h200"), tmp_path).profile.hardware.name == "h200"


def test_another_machine_is_not_detected_from_here(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is another machine: name its hardware by --hardware NAME"):
        open_session(Options(attach="http://far.example:8000"), tmp_path)
