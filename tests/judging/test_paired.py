"""Paired proportions: published intervals, coverage of a known truth, and what is refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from conformance.errors import ObservationError
from conformance.judging.paired import PairedTable


@pytest.mark.parametrize(
    ("cells", "value", "low", "high"),
    [
        # Fagerland, Lydersen and Laake (2017), Statistical Analysis of Contingency Tables, chapter 8: complete response
        # before and after consolidation therapy (Cavo et al. 2012), and airway hyper-responsiveness before and after
        # stem cell transplantation (Bentur et al. 2009); Tango's intervals as the R package contingencytables has them.
        ((59, 6, 16, 80), -0.0621, -0.1240, -0.0054),
        ((1, 1, 7, 12), -0.286, -0.517, -0.026),
    ],
)
def test_published_intervals(cells: tuple[int, int, int, int], value: float, low: float, high: float) -> None:
    found = PairedTable(*cells).difference()
    digits = 4 if value == -0.0621 else 3
    assert [round(each, digits) for each in (found.value, found.low, found.high)] == [value, low, high]
    assert found.n == sum(cells)


def test_arms_that_never_differ_may_still_differ_a_little() -> None:
    z = stats.norm.ppf(0.975)
    found = PairedTable(90, 0, 0, 10).difference()
    assert found.value == 0
    assert found.high == pytest.approx(z**2 / (100 + z**2), abs=1e-6)
    assert found.low == pytest.approx(-found.high, abs=1e-6)


def test_the_arms_can_change_places() -> None:
    one, other = PairedTable(50, 9, 2, 5).difference(), PairedTable(50, 2, 9, 5).difference()
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


@pytest.mark.parametrize(("cells", "end"), [((0, 4, 0, 0), 1.0), ((0, 0, 4, 0), -1.0)])
def test_one_arm_that_is_always_right_alone(cells: tuple[int, int, int, int], end: float) -> None:
    found = PairedTable(*cells).difference()
    assert end in (found.low, found.high)
    assert found.low < found.high
    assert math.isclose(found.value, end)


def test_a_higher_confidence_is_wider() -> None:
    table = PairedTable(80, 5, 8, 7)
    usual, wide = table.difference(), table.difference(confidence=0.99)
    assert wide.low < usual.low < usual.high < wide.high


def test_a_table_counts_pairs() -> None:
    pairs = [(True, True)] * 4 + [(True, False)] * 3 + [(False, True)] * 2 + [(False, False)]
    table = PairedTable.of(pairs)
    assert table == PairedTable(4, 3, 2, 1)
    assert (table.n, table.first, table.second) == (10, 7, 6)


def test_no_question_is_refused() -> None:
    with pytest.raises(ObservationError, match="no questions"):
        PairedTable(0, 0, 0, 0).difference()


@pytest.mark.parametrize(("only_first", "only_second"), [(0.02, 0.02), (0.01, 0.06), (0.05, 0.15), (0.0, 0.05)])
def test_the_difference_is_covered_at_its_nominal_rate(only_first: float, only_second: float) -> None:
    rng = np.random.default_rng(7)
    truth, n, trials = only_first - only_second, 120, 600
    cells = rng.multinomial(n, (0.9 - only_first - only_second, only_first, only_second, 0.1), trials)
    tables = {tuple(row): PairedTable(*row).difference() for row in cells.tolist()}
    covered = sum(tables[tuple(row)].low <= truth <= tables[tuple(row)].high for row in cells.tolist())
    assert 0.92 <= covered / trials <= 0.99


def test_a_loss_at_the_margin_rarely_passes() -> None:
    """The risk of a PASS where the margin is just lost is at most the one-sided error of the interval."""
    margin, n = 0.05, 120
    passes = 0.0
    for lost, won in itertools.product(range(25), range(12)):
        if PairedTable(n - lost - won, won, lost, 0).difference().low >= -margin:
            passes += stats.multinomial.pmf((n - lost - won, won, lost), n, (0.91, 0.02, 0.07))
    assert 0.005 < passes < 0.035
