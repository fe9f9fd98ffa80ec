"""Label smoothing, class weights, Mixup and CutMix against PyTorch's own and their papers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toys import make
from written_out import gradients

from codistill import Batch, InputError
from codistill.data.batches.mixing import MixedBatches, Mixing, balanced_weights, cut_box
from codistill.methods import DML
from codistill.methods.losses import ce_loss
from codistill.names import METHODS
from codistill.runs.run import Run
from codistill.settings.config import Config
from codistill.training.evaluate import evaluate

C = 5


class Batches:
    """Two views of images that tell which image, place and step they are of."""

    def __init__(self, n=8, steps=6):
        self.n, self.steps = n, steps

    def __len__(self):
        return self.steps

    def start_at(self, epoch, step=0):
        self.epoch, self.start = epoch, step

    def __iter__(self):
        for step in range(self.start, self.steps):
            rng = torch.Generator().manual_seed(1000 * self.epoch + step)
            views = [torch.rand(self.n, 3, 16, 12, generator=rng) for _ in range(2)]
            yield Batch(views, torch.arange(self.n) % C)


def first(mixing, **options):
    (plain,) = list(MixedBatches(Batches(steps=1), C, Mixing()))
    (mixed,) = list(MixedBatches(Batches(steps=1), C, mixing, **options))
    return plain, mixed


def test_smoothed_labels_give_the_loss_of_pytorch():
    z = torch.randn(8, C)
    _, (_, y) = first(Mixing(label_smoothing=0.1))
    expected = F.cross_entropy(z, torch.arange(8) % C, label_smoothing=0.1)
    assert torch.allclose(ce_loss(z, y), expected)


def test_class_weights_give_the_weighted_mean_of_pytorch():
    z, w = torch.randn(8, C), torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0])
    _, (_, y) = first(Mixing(class_weights=w))
    assert torch.allclose(ce_loss(z, y), F.cross_entropy(z, torch.arange(8) % C, weight=w))


def test_balanced_weights_make_every_class_count_the_same():
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    w = balanced_weights(labels, 4)
    counts = torch.bincount(labels, minlength=4)
    assert torch.allclose(w * counts, torch.tensor([2.5, 2.5, 0, 2.5]))


@pytest.mark.parametrize("K", [1, 3])
def test_the_loss_of_one_hot_rows_is_that_of_indices(K):
    z, labels = torch.randn(K, 8, C, dtype=torch.float64, requires_grad=True), torch.arange(8) % C
    losses = ce_loss(z, labels), ce_loss(z, F.one_hot(labels, C).double())
    assert torch.allclose(*losses)
    assert torch.allclose(*(gradients(loss, [z])[0] for loss in losses))


def test_mixup_blends_each_image_and_label_with_the_one_before_by_one_share():
    for seed in range(5):
        (views, labels), (mixed, y) = first(Mixing(mixup=1.0), seed=seed)
        keep = [(m - x.roll(1, 0)) / (x - x.roll(1, 0)) for m, x in zip(mixed, views, strict=True)]
        assert all(torch.allclose(k, keep[0].flatten()[0].expand_as(k), atol=1e-3) for k in keep)
        share = keep[0].median()
        assert 0 < share < 1
        assert torch.allclose(y, share * labels + (1 - share) * labels.roll(1, 0), atol=1e-3)


def test_cutmix_takes_a_box_of_the_image_before_and_counts_its_pixels():
    boxes = set()
    for seed in range(8):
        (views, labels), (mixed, y) = first(Mixing(cutmix=1.0), seed=seed)
        kept = [m == x for m, x in zip(mixed, views, strict=True)]
        other = [m == x.roll(1, 0) for m, x in zip(mixed, views, strict=True)]
        assert all((k | o).all() for k, o in zip(kept, other, strict=True))
        assert torch.equal(kept[0], kept[1])
        assert torch.equal(kept[0], kept[0][:1, :1].expand_as(kept[0]))  # one box for all
        share = kept[0].float().mean()
        assert torch.allclose(y, share * labels + (1 - share) * labels.roll(1, 0), atol=1e-6)
        rows, columns = (~kept[0][0, 0]).nonzero(as_tuple=True)
        if len(rows):
            height, width = (int(a.max() - a.min()) + 1 for a in (rows, columns))
            assert height * width == (~kept[0][0, 0]).sum()
            boxes.add((height, width))
    assert len(boxes) > 3


def test_a_box_has_the_share_that_it_should_where_it_lies_inside():
    class Middle(np.random.Generator):
        def integers(self, n):
            return n // 2

    top, bottom, left, right = cut_box(100, 60, 0.64, Middle(np.random.PCG64()))
    assert (bottom - top, right - left) == (60, 36)
    rng = np.random.default_rng(0)
    for _ in range(100):
        top, bottom, left, right = cut_box(10, 6, rng.random(), rng)
        assert 0 <= top <= bottom <= 10
        assert 0 <= left <= right <= 6


def test_with_both_each_batch_takes_one():
    batches = MixedBatches(Batches(steps=40), C, Mixing(mixup=1.0, cutmix=1.0))
    plain = list(MixedBatches(Batches(steps=40), C, Mixing()))
    cut = [
        bool((m.views[0] == p.views[0]).any()) for m, p in zip(batches, plain, strict=True)
    ]  # a blend changes every pixel
    assert 8 < sum(cut) < 32


def test_the_images_that_came_are_not_written_to():
    batches = Batches(steps=1)
    batches.start_at(0)
    (given,) = list(batches)
    before = [x.clone() for x in given.views]

    class One(Batches):
        def __iter__(self):
            yield given

    list(MixedBatches(One(steps=1), C, Mixing(cutmix=1.0, mixup=1.0)))
    assert all(torch.equal(x, b) for x, b in zip(given.views, before, strict=True))


def test_an_epoch_taken_up_in_the_middle_is_the_same():
    mixing = Mixing(mixup=0.4, cutmix=1.0, label_smoothing=0.1)
    batches = MixedBatches(Batches(), C, mixing, seed=3)
    batches.start_at(2)
    whole = list(batches)
    batches.start_at(2, 4)
    rest = list(batches)
    assert len(rest) == 2
    for a, b in zip(whole[4:], rest, strict=True):
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.views[1], b.views[1])
    batches.start_at(3)
    assert not torch.equal(next(iter(batches)).labels, whole[0].labels)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("target", ["one-hot", "mixed"])
def test_every_method_takes_distributions(name, target):
    """One-hot rows give the losses of indices; mixed ones give finite ones."""
    torch.manual_seed(0)
    method = make(name, shared=0 if name == "codistillation" else 2).double()
    rng = torch.Generator().manual_seed(1)
    views = [
        torch.randn(6, 3, 8, 8, generator=rng, dtype=torch.float64) for _ in range(method.views)
    ]
    labels = torch.arange(6) % method.peers.num_classes
    rows = F.one_hot(labels, method.peers.num_classes).double()
    method.begin_epoch(0, None)
    out = method(views)
    if target == "one-hot":
        expected = method.losses(out, labels, 0)
        for term, value in method.losses(out, rows, 0).items():
            assert torch.allclose(value, expected[term]), term
    else:
        losses = method.losses(out, 0.7 * rows + 0.3 * rows.roll(1, 0), 0)
        assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize("target", ["naive", "linear", "minlogit"])
def test_class_weights_do_not_change_what_kdcl_teaches(target):
    method = make("kdcl", target=target)
    z, labels = torch.randn(2, 6, 4), torch.arange(6) % 4
    rows = F.one_hot(labels, 4).float()
    teachers = [method._teacher(z, y) for y in (labels, rows, 2.5 * rows)]
    assert torch.allclose(teachers[0], teachers[1], atol=1e-6)
    assert torch.allclose(teachers[0], teachers[2], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5"),
        ({"mixup": -1.0}, "mixup is -1"),
        ({"cutmix": -0.1}, "cutmix is -0.1"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Mixing(**options)


def test_weights_of_other_classes_are_refused():
    with pytest.raises(InputError, match="3 class weights for 5 classes"):
        MixedBatches(Batches(), C, Mixing(class_weights=torch.ones(3)))


def test_nothing_on_is_false():
    assert not Mixing()
    assert Mixing(label_smoothing=0.1)
    assert Mixing(mixup=0.2)
    assert Mixing(cutmix=0.2)
    assert Mixing(class_weights=torch.ones(5))


@pytest.mark.long
def test_a_run_trains_on_what_its_options_make_of_labels(tmp_path, monkeypatch):
    """And evaluates on classes."""
    options = {"label_smoothing": 0.1, "mixup": 0.2, "cutmix": 1.0, "class_weights": "balanced"}
    config = Config(network="resnet8", epochs=1, out=str(tmp_path), method={"name": "dml"})
    seen = []
    monkeypatch.setattr(DML, "losses", lambda *a, real=DML.losses: seen.append(a[2]) or real(*a))
    plain = Run.create(replace(config, out=str(tmp_path / "plain")))
    (record,) = plain.train()
    assert all(y.ndim == 1 for y in seen)
    for name, value in options.items():
        seen.clear()
        run = Run.create(replace(config, out=str(tmp_path / name), **{name: value}))
        assert [r["val/top1/peer0"] >= 0 for r in run.train()] == [True]
        assert all(y.shape[1:] == (10,) for y in seen)
        y = torch.cat(seen)
        kinds = {
            "label_smoothing": (y.amax(dim=1) - 0.91).abs().max() < 1e-6,
            "mixup": 0.5 < (y > 0).sum(dim=1).float().mean() - 1 < 1,
            "cutmix": 0.3 < (y > 0).sum(dim=1).float().mean() - 1 < 1,
            "class_weights": len(y[y > 0].unique()) > 5,
        }
        assert kinds[name], (name, y[:4])


def test_labels_to_evaluate_on_are_classes():
    method = make("dml")
    rows = F.one_hot(torch.arange(4), 4).float()
    with pytest.raises(InputError, match=r"labels to evaluate on are \(4, 4\)"):
        evaluate(method, [Batch([torch.randn(4, 3, 8, 8)], rows)])
