"""Predictions, and how far they can be believed."""

import numpy as np
import pytest
import torch
from photo_fakes import plain
from toys import echo, make, tiny

from codistill import InputError, Method, Peers, evaluate
from codistill.analysis import Guesses, Predictions, calibration, predict
from codistill.data import EvalBatches, Normalisation, Split, StreamedEvalBatches
from codistill.methods import Independent

N, C = 200, 12


def pixels(batch_size: int = 64) -> EvalBatches:
    """Random images of 2x2 pixels, whose 12 values an `echo` takes for logits."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (N, 2, 2, 3), generator=rng, dtype=torch.uint8)
    split = Split(images, torch.randint(C, (N,), generator=rng))
    return EvalBatches(split, batch_size, Normalisation((0.0, 0.0, 0.0), (60.0, 60.0, 60.0)))


def echoed() -> Method:
    return Independent(Peers([echo()]))


def softmax(batches: EvalBatches) -> tuple[np.ndarray, np.ndarray]:
    """What `echo` predicts, and the labels, without PyTorch."""
    logits = batches.split.images.numpy().transpose(0, 3, 1, 2).reshape(N, C) / 60.0
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True), batches.split.labels.numpy()


def sure(confidence: list[float], right: list[int]) -> Predictions:
    """One classifier "peer0" that is so sure of class 0."""
    n = len(confidence)
    zeros = torch.zeros(n)
    guesses = Guesses(zeros.long(), torch.tensor(confidence), zeros, zeros)
    return Predictions(torch.arange(n), 1 - torch.tensor(right), {"peer0": guesses})


@pytest.mark.parametrize("batch_size", [64, 200, 7])
def test_a_prediction_is_what_softmax_says(batch_size):
    batches = pixels(batch_size)
    p, labels = softmax(batches)
    found = predict(echoed(), batches)
    of = found.of["peer0"]
    assert found.index.tolist() == list(range(N))
    assert np.array_equal(found.labels, labels)
    assert np.array_equal(of.guess, p.argmax(axis=1))
    np.testing.assert_allclose(of.confidence, p.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(of.nll, -np.log(p[np.arange(N), labels]), rtol=1e-5)
    np.testing.assert_allclose(of.brier, ((p - np.eye(C)[labels]) ** 2).sum(axis=1), rtol=1e-5)


def test_all_classifiers_are_asked_and_agree_with_the_evaluation():
    torch.manual_seed(0)
    method = make("ffl", K=2)
    images = torch.randint(256, (50, 8, 8, 3), dtype=torch.uint8)
    split = Split(images, torch.arange(50) % 4)
    batches = EvalBatches(split, 20, Normalisation((127.0,) * 3, (70.0,) * 3))
    found = predict(method, batches)
    metrics = evaluate(method, batches)
    assert list(found.of) == ["peer0", "peer1", "ensemble", "fused"]
    for name, of in found.of.items():
        top1 = 100 * found.right(name).double().mean().item()
        assert top1 == pytest.approx(metrics[f"top1/{name}"])
        assert of.nll.mean().item() == pytest.approx(metrics[f"nll/{name}"], rel=1e-5)


def test_predicting_changes_neither_modes_nor_random_numbers():
    method = make("ffl", K=2, dropout=0.5).train()
    images = torch.randint(256, (8, 8, 8, 3), dtype=torch.uint8)
    batches = EvalBatches(
        Split(images, torch.arange(8) % 4), 8, Normalisation((0.0,) * 3, (9.0,) * 3)
    )
    before = torch.get_rng_state()
    first = predict(method, batches).of["fused"].nll
    assert torch.equal(predict(method, batches).of["fused"].nll, first)
    assert torch.equal(torch.get_rng_state(), before)
    assert {m.training for m in method.modules()} == {True}


def test_a_broken_image_is_left_out_and_places_stay_right(tmp_path):
    values = list(range(0, 200, 10))
    split = plain(tmp_path, values)
    (tmp_path / "class0" / "004.png").write_bytes(b"nothing")  # the third of its class
    normalisation = Normalisation((0.0,) * 3, (255.0,) * 3)
    batches = StreamedEvalBatches(split, 6, normalisation, image_size=8)
    method = Independent(Peers([tiny(num_classes=2)]))
    found = predict(method, batches)
    assert found.index.tolist() == [0, 1, *range(3, 20)]
    assert found.labels.tolist() == [0] * 9 + [1] * 10
    (again,) = batches.take(found.index[[4, 12]])
    assert [round(255 * float(x.mean())) for x in again.views[0]] == [100, 70]


def test_ece_is_that_of_the_paper_written_out():
    batches = pixels()
    p, labels = softmax(batches)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    ece = 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            ece += inside.sum() / N * gap
    found = calibration(predict(echoed(), batches), "peer0")
    assert found.ece == pytest.approx(ece, abs=1e-6)
    assert found.overconfidence == pytest.approx(confidence.mean() - right.mean(), abs=1e-6)
    assert found.nll == pytest.approx(-np.log(p[np.arange(N), labels]).mean(), rel=1e-5)
    assert found.brier == pytest.approx(((p - np.eye(C)[labels]) ** 2).sum() / N, rel=1e-5)
    assert sum(b.count for b in found.bins) == N


def test_a_bin_holds_what_is_above_its_lower_edge_up_to_its_upper_edge():
    found = calibration(sure([0.25, 0.2501, 0.5, 0.0, 1.0], [1, 0, 1, 0, 1]), "peer0", bins=4)
    assert [b.count for b in found.bins] == [2, 2, 0, 1]
    assert [(b.low, b.high) for b in found.bins] == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]
    assert [b.accuracy for b in found.bins] == [0.5, 0.5, None, 1.0]
    assert found.bins[0].confidence == pytest.approx(0.125)
    assert found.bins[2].confidence is None


def test_gaps_of_opposite_sign_in_two_bins_do_not_cancel_in_ece():
    found = calibration(
        sure([0.4] * 10 + [0.9] * 10, [1] * 6 + [0] * 4 + [1] * 7 + [0] * 3), "peer0"
    )
    assert found.ece == pytest.approx(0.2)
    assert found.overconfidence == pytest.approx(0.0, abs=1e-6)


def test_a_classifier_that_knows_how_sure_to_be_has_no_error():
    assert calibration(sure([0.75] * 4, [1, 1, 0, 1]), "peer0").ece == pytest.approx(0)


def test_no_bin_is_refused():
    with pytest.raises(InputError, match="bins is 0"):
        calibration(sure([0.5], [1]), "peer0", bins=0)
