"""What a classifier is wrong about: pairs of classes, and its surest wrong images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from photo_fakes import plain
from scipy.stats import binomtest
from toys import told

from codistill.analysis import Mistakes, Predictions, mistakes
from codistill.analysis.cost.latency import latency
from codistill.analysis.intervals import interval_of_mean, interval_of_share
from codistill.data import EvalBatches, Normalisation, Split
from codistill.data.batches.copies import Copies
from codistill.data.batches.streamed import StreamedEvalBatches

AS_IT_IS = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
LABELS, GUESSES = [0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 0, 1]


def predictions(confidence: list[float]) -> Predictions:
    made = told(LABELS, GUESSES, GUESSES)
    sure = replace(made.of["peer0"], confidence=torch.tensor(confidence))
    return replace(made, of={"peer0": sure})


@pytest.fixture(params=["images", "copies"])
def found(tmp_path: Path, request: pytest.FixtureRequest) -> Mistakes:
    # in the split the even values come first, so image i has the value VALUES[i]
    split = plain(tmp_path, [10, 40, 20, 50, 30, 60])
    if request.param == "copies":
        split = replace(split, store=Copies(split.store, tmp_path / "copies", 16))
    batches = StreamedEvalBatches(split, 4, AS_IT_IS, 16)
    return mistakes(predictions([0.9, 0.5, 0.7, 0.9, 0.6, 0.9]), "peer0", batches, 2)


def test_pairs_of_classes_are_counted(found: Mistakes) -> None:
    assert found.counts == {(0, 0): 1, (0, 1): 2, (1, 1): 2, (1, 0): 1}


def test_the_surest_wrong_images_come_with_their_files(found: Mistakes, tmp_path: Path) -> None:
    facts = [(m.index, m.label, m.guess, m.name) for m in found.surest]
    assert facts == [(2, 0, 1, "class0/004.png"), (4, 1, 0, "class1/003.png")]
    assert [m.confidence for m in found.surest] == pytest.approx([0.7, 0.6])
    assert [m.file for m in found.surest] == [tmp_path / m.name for m in found.surest if m.name]
    assert [int(m.image[0, 0, 0]) for m in found.surest] == [30, 50]


def test_images_in_memory_have_no_file() -> None:
    split = Split(torch.zeros(6, 2, 2, 3, dtype=torch.uint8), torch.tensor(LABELS))
    found = mistakes(predictions([0.5] * 6), "peer0", EvalBatches(split, 4, AS_IT_IS))
    assert [(m.index, m.name, m.file) for m in found.surest] == [(i, None, None) for i in (1, 2, 4)]


def test_the_interval_of_a_share_is_wilsons() -> None:
    for right, n in ((8, 10), (48, 48), (0, 48)):
        reference = binomtest(right, n).proportion_ci(method="wilson")
        expected = pytest.approx((100 * reference.low, 100 * reference.high))
        assert interval_of_share(100 * right / n, n) == expected


def test_the_interval_of_a_mean_is_students() -> None:
    assert interval_of_mean([1.0, 2.0, 3.0]) == pytest.approx((-0.4841377, 4.4841377))
    assert interval_of_mean([1.0]) is None


def test_the_latency_is_that_of_the_later_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 10.0, 19.0, 20.0, 20.1, 30.0, 30.3, 40.0, 40.2])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    network = torch.nn.Conv2d(3, 1, 1)
    assert latency(network, (4, 4)) == pytest.approx(0.2)
