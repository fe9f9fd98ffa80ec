"""The statistics of paired differences, against numbers worked out by hand and by scipy."""

import math

import pytest
from scipy import stats

from codistill.analysis.paired import holm, paired


def test_three_differences_worked_out_by_hand() -> None:
    """Mean 2, standard deviation 1; t of 2 degrees of freedom at 97.5 % is 4.302653."""
    found = paired([1.0, 3.0, 2.0])
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)
    half = 4.302653 / math.sqrt(3)
    assert found.interval == pytest.approx((2 - half, 2 + half), abs=1e-5)
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(t * t + 2), abs=1e-9)  # Student, df = 2
    assert found.effect == pytest.approx(2 / math.sqrt(math.pi), abs=1e-9)  # J(2) = 1/sqrt(pi)


def test_the_test_is_that_of_two_paired_samples() -> None:
    one, other = [71.2, 70.4, 72.9, 71.7, 70.8], [70.1, 70.6, 71.5, 71.0, 70.2]
    found = paired([a - b for a, b in zip(one, other, strict=True)])
    expected = stats.ttest_rel(one, other)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.sd
    approximate = 1 - 3 / (4 * 4 - 1)  # the usual approximation of J, df = 4
    assert found.effect == pytest.approx(approximate * found.mean / found.sd, rel=0.01)


def test_the_interval_holds_the_true_mean_nineteen_times_in_twenty() -> None:
    samples = stats.norm(0.5, 1.3).rvs((1000, 3), random_state=0)
    found = [paired(list(map(float, sample))).interval for sample in samples]
    held = sum(low <= 0.5 <= high for low, high in found if low is not None)  # type: ignore[misc]
    assert held / len(samples) == pytest.approx(0.95, abs=0.02)


@pytest.mark.long
def test_the_effect_is_without_bias() -> None:
    samples = stats.norm(0.8, 1.0).rvs((2000, 5), random_state=0)
    effects = [paired(list(map(float, sample))).effect for sample in samples]
    assert sum(e for e in effects if e is not None) / len(effects) == pytest.approx(0.8, abs=0.04)


def test_one_difference_has_no_interval() -> None:
    found = paired([1.5])
    assert (found.n, found.mean) == (1, 1.5)
    assert (found.sd, found.interval, found.effect, found.p) == (None, None, None, None)


def test_two_differences_have_no_effect_size() -> None:
    found = paired([1.0, 2.0])
    assert found.interval is not None
    assert found.effect is None


@pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
def test_equal_differences_are_not_tested(value: float) -> None:
    nearly = value + 1e-13
    found = paired([value, nearly, value])
    assert (found.mean, found.sd) == (pytest.approx(value), 0.0)
    assert (found.interval, found.effect, found.p) == (None, None, None)


def test_holm_worked_out_by_hand() -> None:
    """0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1; the last may not fall below the one before."""
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])


def test_holm_does_not_exceed_one() -> None:
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
