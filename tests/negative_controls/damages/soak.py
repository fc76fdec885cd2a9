"""What can go wrong while a load is held; each function damages the documents in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support import synthetic

Documents = synthetic.Documents
Row = tuple[str, Callable[[Documents], None], str]


def late(d: Documents) -> list[dict[str, Any]]:
    """The windows of the last third."""
    windows: list[dict[str, Any]] = d["soak"]["windows"]
    return windows[-len(windows) // 3 :]


def request_fails(d: Documents) -> None:
    what = "mtp server: prompt p007 got no usable answer (InternalServerError: Error code: 500)"
    d["soak"].update(failed=1, failures=[{"seconds": 71.2, "what": what}], counted=None)


def server_dies(d: Documents) -> None:
    d["soak"].update(alive=False, broken="mtp server died: RuntimeError: out of memory", seconds=93.0)
    del d["soak"]["windows"][18:]


def server_gone_at_the_end(d: Documents) -> None:
    d["soak"]["alive"] = False


def stalls(d: Documents) -> None:
    counted = d["soak"]["windows"][20]["counted"]
    counted.update(dict.fromkeys(("drafts", "draft_tokens", "accepted", "output_tokens"), 0))


def slows_down(d: Documents) -> None:
    """By a fifth, from one window to the next, in the last third: a line through all windows would hardly fall."""
    for window in late(d):
        window["counted"]["output_tokens"] *= 0.8


def accepts_less(d: Documents) -> None:
    for window in late(d):
        window["counted"]["accepted"] = round(0.9 * window["counted"]["accepted"])


def leaks(d: Documents) -> None:
    """Twelve MiB a minute, 720 an hour."""
    for number, window in enumerate(d["soak"]["windows"]):
        window["resident_mib"] += 12 * number


def leaks_on_the_gpu(d: Documents) -> None:
    for number, window in enumerate(d["soak"]["windows"]):
        window["gpus"][0]["memory_mib"] += 12 * number


def too_hot(d: Documents) -> None:
    late(d)[3]["gpus"][0]["reasons"] = {"sw_thermal_slowdown": 1}


def capped(d: Documents) -> None:
    for window in late(d):
        window["gpus"][0]["reasons"] = {"sw_power_cap": 2}


def clocks_fall(d: Documents) -> None:
    for window in late(d):
        window["gpus"][0]["sm_clock_mhz"] = 1410.0


def draws_more_power(d: Documents) -> None:
    for window in d["energy"]["windows"]:
        window["gpus"][0]["energy_j"] *= 2 if window["arm"] == "mtp" else 1


def no_gpu_worked(d: Documents) -> None:
    for window in d["energy"]["windows"]:
        window["gpus"][0]["busy"] = 0


def no_token_in_a_window(d: Documents) -> None:
    d["energy"]["windows"][3]["output_tokens"] = 0


def never_asked(d: Documents) -> None:
    d["soak"].update(answered=0, windows=[])


def few_windows(d: Documents) -> None:
    del d["soak"]["windows"][14:]


def nothing_drafted(d: Documents) -> None:
    d["soak"]["windows"][-1]["counted"].update(drafts=0)


def no_windows_at_all(d: Documents) -> None:
    d["soak"]["windows"] = []


DAMAGES: list[Row] = [
    ("SOAK-01", request_fails, "after 71 s mtp server: prompt p007 got no usable answer"),
    ("SOAK-01", server_dies, "the load broke off after 93 s: mtp server died: RuntimeError: out of memory"),
    ("SOAK-01", server_gone_at_the_end, "the server did not survive the load"),
    ("SOAK-01", stalls, "no token arrived between 1200 and 1260 s"),
    ("SOAK-02", slows_down, "tokens/s of the last third over the first 0.80"),
    ("SOAK-03", accepts_less, "acceptance length of the last third over the first 0.9"),
    ("SOAK-04", leaks, "MiB an hour by which resident memory grows 720."),
    ("SOAK-04", leaks_on_the_gpu, "MiB an hour by which memory of GPU 0 grows 720."),
    ("SOAK-05", too_hot, "clocks were lowered by sw_thermal_slowdown in 0.7% of the samples, where 0% are allowed"),
    ("SOAK-05", capped, "clocks were lowered by sw_power_cap in 13.3% of the samples, where 5% are allowed"),
    ("SOAK-06", draws_more_power, "tokens/J with MTP over those without 0.9"),
    ("SOAK-05", clocks_fall, "SM clock of GPU 0 of the last third over the first 0.7"),
]
NOTHING: list[Row] = [
    ("SOAK-01", never_asked, "nothing was looked at"),
    ("SOAK-02", few_windows, "measurements against"),
    ("SOAK-02", no_windows_at_all, "has 0 windows after the warm-up"),
    ("SOAK-03", nothing_drafted, "nothing was drafted between 1740 and 1800 s"),
    ("SOAK-04", few_windows, "a trend needs 10"),
    ("SOAK-05", few_windows, "measurements against"),
    ("SOAK-06", no_gpu_worked, "no GPU worked in every window and told its energy"),
    ("SOAK-06", no_token_in_a_window, "no token was generated in a window"),
]
