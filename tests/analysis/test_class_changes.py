"""Classes that one classifier knows better than another."""

from math import comb

import pytest
import torch
from toys import told

from codistill.analysis import class_accuracies, class_changes
from codistill.analysis.classes import _chance, _sign_test

NAMES = ("ant", "bee", "cow", "dog")


# Of ants the second gains 8 and loses 1; of bees it loses 3 of 4; cows nothing; no dogs.
LABELS = [0] * 12 + [1] * 4 + [2] * 2
FIRST = [0] * 3 + [1] * 9 + [1] * 4 + [2, 3]
SECOND = [1] + [0] * 10 + [1] + [1, 0, 0, 0] + [2, 1]


def changes():
    return class_changes(told(LABELS, FIRST, SECOND), "peer0", "fused", NAMES)


def test_accuracy_is_told_class_by_class():
    predictions = told(LABELS, FIRST, SECOND)
    assert class_accuracies(predictions, "peer0", 4) == [25.0, 100.0, 50.0, None]
    assert class_accuracies(predictions, "fused", 4) == [pytest.approx(1000 / 12), 25.0, 50.0, None]


def test_gains_and_losses_are_counted_from_the_first_to_the_second():
    found = {c.name: c for c in changes().classes}
    assert found.keys() == {"ant", "bee", "cow"}  # of dogs there is no image
    assert (found["ant"].gained, found["ant"].lost, found["ant"].images) == (8, 1, 12)
    assert (found["bee"].gained, found["bee"].lost) == (0, 3)
    assert (found["cow"].gained, found["cow"].lost) == (0, 0)  # a wrong guess for another
    assert found["ant"].difference == pytest.approx(700 / 12)
    assert found["bee"].difference == pytest.approx(-75.0)
    assert (changes().overall.gained, changes().overall.lost) == (8, 4)
    assert changes().overall.images == 18


def test_the_most_improved_and_the_most_hurt_come_first():
    assert [c.name for c in changes().classes] == ["ant", "cow", "bee"]
    assert [c.name for c in changes().most_improved()] == ["ant"]
    assert [c.name for c in changes().most_hurt()] == ["bee"]
    assert changes().most_improved(0) == []


def test_most_hurt_begins_with_the_worst():
    predictions = told([0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2])
    found = class_changes(predictions, "peer0", "fused", NAMES)
    assert [c.name for c in found.most_hurt()] == ["bee", "ant"]


def test_p_is_that_of_the_exact_sign_test():
    found = {c.name: c for c in changes().classes}
    assert found["ant"].p == pytest.approx(2 * (comb(9, 0) + comb(9, 1)) / 2**9)
    assert found["bee"].p == pytest.approx(2 / 2**3)
    assert found["cow"].p == 1.0
    assert changes().overall.p == pytest.approx(2 * sum(comb(12, k) for k in range(5)) / 2**12)


def test_p_values_are_corrected_for_the_number_of_classes():
    found = {c.name: c for c in changes().classes}
    assert found["ant"].p < 0.05
    assert found["ant"].corrected == pytest.approx(3 * found["ant"].p)
    assert (changes().uncorrected, changes().findings) == (1, 0)


def test_the_standard_error_is_that_of_a_mean_of_differences():
    ant = changes().classes[0]
    differences = torch.tensor([1.0] * 8 + [-1.0] + [0.0] * 3, dtype=torch.float64)
    expected = 100 * differences.std(correction=0) / 12**0.5
    assert ant.standard_error == pytest.approx(float(expected))


def test_how_many_classes_would_differ_by_chance_is_said():
    by_hand = sum(comb(9, gained) / 2**9 for gained in range(10) if _sign_test(gained, 9) < 0.05)
    assert 0 < by_hand < 0.05
    assert _chance(9) == pytest.approx(by_hand)
    assert _chance(3) == _chance(0) == 0  # so few can never be significant
    assert changes().by_chance == pytest.approx(by_hand)
