"""A soak: what is seen of good and of tiring servers, how long it lasts, and what its intervals are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from negative_controls.faux_servers import PROFILE, launch, launcher, recording, with_prompts
from negative_controls.faux_servers.checkpoints import Checkpoints
from negative_controls.judge_documents import judged
from support import synthetic
from support.nvml import GB10, H100, Card, nvml

from conformance.commands.main import main
from conformance.errors import ObservationError, Unsupported, UsageError
from conformance.evidence.folder import Evidence
from conformance.judging import stats
from conformance.judging.verdict import Verdict
from conformance.observers import energy, observer, soak
from conformance.profile.gpus import sensors
from conformance.profile.profile import MOST_WINDOWS, load_profile, soak_windows, with_soak_minutes
from conformance.profile.tolerances import load_tolerances
from conformance.reports import charts
from conformance.reports.charts import Timeline
from conformance.reports.source import Source
from conformance.run.session import Options, open_session
from conformance.serving.pool import ServerPool
from conformance.views.soak import Energy, Soak

TOLERANCES = load_tolerances()
Observe = Callable[..., dict[str, Any]]


@pytest.fixture
def observe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Observe]:
    """Holds a load of seconds on a faux server with this fault."""
    monkeypatch.setattr(soak, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(soak, "LOOK_SECONDS", 0.1)
    (tmp_path / "pair").mkdir()
    made = Checkpoints(tmp_path / "pair", "E2B")
    made.write()
    pair = replace(PROFILE.pair, home=str(made.target.parent))
    profile = with_prompts(replace(PROFILE, pair=pair), tmp_path / "prompts")
    evidence, opened = recording(tmp_path / "evidence"), list[ServerPool]()

    def held(fault: str = "", name: str = "soak", **sizes: float) -> dict[str, Any]:
        on = replace(profile, sizes=replace(profile.sizes, **sizes))
        opened.append(ServerPool(on, evidence, launcher=launcher(mtp=launch("good", "--k", "4", "--fault", fault))))
        return evidence.observe(name, lambda: observer(name)(on, opened[0], evidence))

    yield held
    for servers in opened:
        servers.close()


def verdict_of(id: str, seen: dict[str, Any]) -> tuple[Verdict, str]:
    """What the check says of this observation."""
    found = judged(id, synthetic.healthy() | {"soak": seen}, {})
    return found.verdict, found.sentence


def test_a_good_server_is_seen_window_by_window(observe: Observe) -> None:
    seen = observe(soak_window_seconds=1.0)
    assert (len(seen["windows"]), seen["failed"], seen["alive"], seen["broken"]) == (6, 0, True, None)
    assert seen["counted"]["output_tokens"] == seen["output_tokens"] == 9 * seen["answered"]
    assert 6 <= seen["seconds"] < 12
    assert all(0 <= each["others_cpu"] < 1 for each in seen["windows"])
    assert all(5 < each["resident_mib"] < 500 and each["gpus"] == [] for each in seen["windows"])
    assert all(each["counted"]["accepted"] == 3 * each["counted"]["drafts"] > 0 for each in seen["windows"])
    assert verdict_of("SOAK-01", seen)[0] is Verdict.PASS
    assert verdict_of("SOAK-05", seen)[0] is Verdict.UNSUPPORTED


@pytest.mark.parametrize(
    ("fault", "minutes", "id", "sentence"),
    [
        ("leaks", 0.1, "SOAK-04", "MiB an hour by which resident memory grows"),
        ("slows down", 0.2, "SOAK-02", "tokens/s of the last third over the first"),
        ("rubbish now and then", 0.1, "SOAK-01", "got no usable answer"),
        ("dies", 0.1, "SOAK-01", "the load broke off after"),
    ],
)
def test_a_server_that_tires_fails(
    observe: Observe, monkeypatch: pytest.MonkeyPatch, fault: str, minutes: float, id: str, sentence: str
) -> None:
    monkeypatch.setattr(soak, "_others", lambda *_: 0.0)  # tests beside this one may not excuse the server
    verdict, said = verdict_of(id, observe(fault, soak_minutes=minutes, soak_window_seconds=2.5 * minutes))
    assert verdict is Verdict.FAIL, said
    assert sentence in said


def test_requests_of_others_are_an_error(observe: Observe) -> None:
    with pytest.raises(ObservationError, match="somebody else sends requests"):
        observe("is asked by others too")


def reading(card: Card, monkeypatch: pytest.MonkeyPatch, **told: Any) -> Any:
    """What the sensors of a made-up card say."""
    made: Any = nvml(card)
    made.NVML_TEMPERATURE_GPU = 0
    for name, value in told.items():
        setattr(made, f"nvmlDeviceGet{name}", lambda *_, value=value: value)
    monkeypatch.setitem(__import__("sys").modules, "pynvml", made)
    with sensors() as sense:
        return sense()


def test_sensors_say_what_nvml_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = type("Memory", (), {"total": 80 << 30, "used": 3 << 30})
    told = {"Temperature": 71, "ClockInfo": 1755, "PowerUsage": 652_300, "CurrentClocksThrottleReasons": 0x24}
    (seen,) = reading(H100, monkeypatch, MemoryInfo=memory, **told)
    assert (seen.memory_mib, seen.temperature_c, seen.sm_clock_mhz, seen.power_w) == (3072, 71, 1755, 652.3)
    assert seen.reasons == ("sw_power_cap", "sw_thermal_slowdown")


def test_what_nvml_does_not_tell_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise made.NVMLError_NotSupported("Not Supported")

    made: Any = nvml(GB10)
    made.NVML_TEMPERATURE_GPU = 0
    for name in ("Temperature", "ClockInfo", "PowerUsage", "CurrentClocksThrottleReasons"):
        setattr(made, f"nvmlDeviceGet{name}", refuse)
    made.nvmlDeviceGetMemoryInfo = refuse
    monkeypatch.setitem(__import__("sys").modules, "pynvml", made)
    monkeypatch.setattr("conformance.profile.gpus.shared_bytes", lambda _: 128 << 30)
    with sensors() as sense:
        assert [*vars(sense()[0]).values()] == [None] * 6


def test_without_nvml_there_are_no_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml(fails="LibraryNotFound"))
    with sensors() as sense:
        assert sense() == []


def test_the_energy_of_a_load_is_counted_by_the_gpu(observe: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows for each server; the counter rises by 10 J a reading, and the one before each window is the first."""
    monkeypatch.setattr(energy, "RAMP_SECONDS", 0.05)
    monkeypatch.setattr(energy, "LOOK_SECONDS", 0.1)
    card = replace(H100, joules=tuple(10.0 * reading for reading in range(1000)))
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml(card))
    seen = observe(name="energy", energy_windows=2, energy_seconds=0.3)
    assert [row["arm"] for row in seen["windows"]] == ["plain", "mtp", "mtp", "plain"]
    for row in seen["windows"]:
        assert row["output_tokens"] > 0
        assert row["gpus"][0]["energy_j"] == 10 * row["gpus"][0]["looks"]
    assert seen["gpus"].startswith("NVIDIA H100")


@pytest.mark.parametrize("card", [(), (H100,)], ids=["no GPU", "a GPU that tells nothing"])
def test_without_a_counter_of_energy_no_load_is_held(
    observe: Observe, monkeypatch: pytest.MonkeyPatch, card: tuple[Card, ...]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml(*card))
    with pytest.raises(Unsupported, match="No GPU tells its energy or its power"):
        observe(name="energy", energy_windows=2, energy_seconds=0.3)


def test_power_replaces_a_counter_that_is_missing_and_idle_gpus_count_for_nothing() -> None:
    facts = synthetic.energy()
    own = Energy.of(facts)
    assert own.note().startswith("with MTP: 3.77 tokens/J, 1600 tokens/s, 424 W; without: 1.98 tokens/J, 800 tokens/s")
    assert own.note().endswith("by the GPUs' own counters")
    for window in facts["windows"]:
        window["gpus"][0]["energy_j"] = None
    found = Energy.of(facts)
    assert found.gain().value == pytest.approx(own.gain().value)
    assert found.note().endswith("by power, read often")


def test_idle_gpus_are_left_out_of_clocks() -> None:
    looks = [soak.Sensors(10.0, 50 + i, 1980 if i else 345, 400.0, () if i else ("gpu_idle",)) for i in range(3)]
    seen = soak.describe_gpu(looks)
    assert (seen["looks"], seen["busy"], seen["sm_clock_mhz"], seen["temperature_c"]) == (3, 2, 1980, 52)
    assert seen["reasons"] == {"gpu_idle": 1}


@pytest.mark.parametrize(("minutes", "windows"), [(3, 36), (30, 360), (24 * 60, MOST_WINDOWS), (0.01, 1)])
def test_a_long_soak_has_longer_windows(minutes: float, windows: int) -> None:
    assert soak_windows(with_soak_minutes(load_profile("cpu", "micro-26b-a4b-nvfp4", "soak"), minutes).sizes) == windows


def test_only_a_soak_has_minutes() -> None:
    with pytest.raises(UsageError, match="leave it out at level qualify, or add --level soak"):
        with_soak_minutes(load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify"), 3)
    for minutes in (0, -1, float("nan"), 1e6):
        with pytest.raises(UsageError, match="is out of range"):
            with_soak_minutes(load_profile("cpu", "micro-26b-a4b-nvfp4", "soak"), minutes)


def test_evidence_knows_how_long_it_was_held(tmp_path: Path) -> None:
    asked = Options(level="soak", minutes=3, evidence=tmp_path / "run", hardware="cpu")
    session = open_session(asked, tmp_path)
    session.begin()
    again = open_session(Options(evidence=tmp_path / "run", recorded_only=True), tmp_path)
    assert again.profile.sizes.soak_minutes == 3
    with pytest.raises(UsageError, match="was recorded with --minutes 3: leave out --minutes 4"):
        open_session(replace(asked, minutes=4), tmp_path)
    with pytest.raises(UsageError, match="leave out --minutes"):
        open_session(Options(resume=tmp_path / "run", minutes=3), tmp_path)
    assert open_session(Options(resume=tmp_path / "run"), tmp_path).profile.sizes.soak_minutes == 3


def test_a_plan_says_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", "--hardware", "cpu", "--level", "soak", "--minutes", "3"]) == 0
    assert "8 requests at once for 3 minutes, in 36 windows of 5 s" in capsys.readouterr().out


def series(rng: np.random.Generator, n: int, rho: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A stationary series whose neighbours are so correlated."""
    noise = rng.normal(0, 0.05 * (1 - rho**2) ** 0.5, n + 50)
    values = np.zeros(n + 50)
    for i in range(1, n + 50):
        values[i] = rho * values[i - 1] + noise[i]
    return values[50:]


@pytest.mark.parametrize(("n", "rho"), [(10, 0.0), (10, 0.5), (40, 0.0), (40, 0.7)])
def test_intervals_hold_what_does_not_drift(n: int, rho: float) -> None:
    rng, trials = np.random.default_rng(7), 300
    held = grown = 0
    for _ in range(trials):
        values = series(rng, 3 * n, rho)
        ratio = stats.kept(list(np.exp(values[:n])), list(np.exp(values[-n:])))
        slope = stats.trend(list(range(3 * n)), list(values))
        held += ratio.low <= 1 <= ratio.high
        grown += slope.low <= 0 <= slope.high
    assert held / trials > 0.89
    assert grown / trials > 0.89


def test_a_drift_is_measured() -> None:
    ratio = stats.kept([10.0, 10.1, 9.9, 10.0, 10.0], [8.0, 8.1, 7.9, 8.0, 8.0])
    assert ratio.value == pytest.approx(0.8, abs=0.001)
    assert 0.77 < ratio.low < ratio.high < 0.83
    slope = stats.trend(list(range(12)), [3.0 * i for i in range(12)])
    assert (slope.value, slope.low, slope.high) == pytest.approx((3, 3, 3))


def slowed(others: float | None) -> dict[str, Any]:
    """A fifth slower in its last third, in which others used so much of the CPU."""
    seen = synthetic.soak()
    for window in seen["windows"][-12:]:
        window["counted"]["output_tokens"] *= 0.8
        window["others_cpu"] = others
    return seen


def test_what_others_may_have_cost_is_no_fault_of_the_server() -> None:
    assert verdict_of("SOAK-02", slowed(0.02))[0] is Verdict.FAIL
    assert verdict_of("SOAK-02", slowed(None))[0] is Verdict.FAIL
    found = judged("SOAK-02", synthetic.healthy() | {"soak": slowed(0.3)}, {})
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "others used 2% of the machine's CPU at first, 30% at last" in found.findings[0].note


def test_growth_that_tails_off_is_no_leak() -> None:
    seen = synthetic.soak()
    for number, window in enumerate(seen["windows"]):
        window["resident_mib"] += 300 * (1 - np.exp(-number / 2))
    assert verdict_of("SOAK-04", seen)[0] is Verdict.PASS


def test_a_step_of_memory_says_nothing() -> None:
    """In three minutes eight MiB would be 320 an hour, in half an hour 32."""
    seen = Soak.of(synthetic.soak(), 0.1)
    step = seen.growth(8)["resident memory"]
    assert (step.low, step.high) == pytest.approx((-32, 32), abs=3)
    short = synthetic.soak()
    short["minutes"] = 3.0
    for window in short["windows"]:
        window.update(begin=window["begin"] / 10, end=window["end"] / 10)
    assert verdict_of("SOAK-04", short)[0] is Verdict.INCONCLUSIVE


def test_restless_memory_is_inconclusive() -> None:
    seen, rng = synthetic.soak(), np.random.default_rng(3)
    for window in seen["windows"]:
        window["resident_mib"] += rng.normal(0, 40)
    verdict, sentence = verdict_of("SOAK-04", seen)
    assert verdict is Verdict.INCONCLUSIVE
    assert "may or may not stay within 100" in sentence


def test_a_soak_is_drawn_over_time(tmp_path: Path) -> None:
    folder = synthetic.record(tmp_path / "run", {"soak": synthetic.soak()}, level="soak")
    source = Source(Evidence(folder, recording=False), load_profile("cpu", "micro-26b-a4b-nvfp4", "soak"))
    drawn = charts.soak(source)
    assert isinstance(drawn, Timeline)
    assert [line.label for line in drawn.lines] == [
        "output tokens/s",
        "acceptance length",
        "resident memory, MiB",
        "GPU 0: temperature, °C",
        "GPU 0: SM clock, MHz",
        "GPU 0: memory in use, MiB",
    ]
    assert drawn.axis.ticks[-1] == 30
    assert [row.figure for row in drawn.rows] == [
        "throughput kept",
        "acceptance length kept",
        "growth of resident memory, MiB an hour",
    ]
    assert [row.floor for row in drawn.rows[:2]] == pytest.approx([0.9, 0.97])
    assert all(0 <= float(part) <= 100 for point in drawn.path(drawn.lines[0]).split() for part in point.split(","))


def test_a_soak_that_broke_off_is_drawn_as_far_as_it_came(tmp_path: Path) -> None:
    seen = synthetic.soak()
    del seen["windows"][5:]
    folder = synthetic.record(tmp_path / "run", {"soak": seen}, level="soak")
    drawn = charts.soak(Source(Evidence(folder, recording=False), load_profile("cpu", "micro-26b-a4b-nvfp4", "soak")))
    assert len(drawn.lines[0].points) == 5
    assert drawn.rows == ()


def test_the_warm_up_is_judged_by_nothing() -> None:
    seen = synthetic.soak()
    for window in seen["windows"][:3]:
        window["counted"]["output_tokens"] *= 0.1
    assert Soak.of(seen, TOLERANCES["soak_warm_up"]).throughput_kept().value == pytest.approx(1, abs=0.02)
