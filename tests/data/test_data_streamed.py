"""Streamed batches: each image once, drawn from seed, epoch, image and view, and nothing else."""

import io
import sys

import numpy as np
import pytest
import torch
from photo_fakes import encoded, photos, picture, plain
from PIL import Image

from codistill.data import (
    CropAugmentation,
    Normalisation,
    StreamedEvalBatches,
    StreamedTrainBatches,
    open_dataset,
)
from codistill.data.batches.boxes import centre_box, random_box
from codistill.data.batches.streamed import _Augmented, _Key
from codistill.errors import InputError, MissingExtraError

AS_IT_IS = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SMALL = CropAugmentation(image_size=8)


def train(split, batch_size=4, augmentation=SMALL, **options):
    return StreamedTrainBatches(split, batch_size, AS_IT_IS, augmentation, **options)


def evaluation(split, batch_size=4, **options):
    return StreamedEvalBatches(split, batch_size, AS_IT_IS, image_size=8, **options)


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.labels, b.labels)
        and all(torch.equal(v, w) for v, w in zip(a.views, b.views, strict=True))
        for a, b in zip(first, second, strict=True)
    )


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Image i of the folder is filled with 10 i; even ones are of class 0."""
    return plain(tmp_path_factory.mktemp("plain"), [10 * i for i in range(9)])


def numbers(batch):
    return (batch.views[0][:, 0, 0, 0] / 10).int().tolist()


# One pass


def test_an_epoch_has_every_image_once_with_its_label(numbered):
    batches = list(train(numbered.take(torch.arange(8)), 3))
    assert sorted(i for b in batches for i in numbers(b)) == [0, 1, 2, 3, 4, 5, 6, 8]
    for batch in batches:
        assert batch.labels.tolist() == [i % 2 for i in numbers(batch)]
    assert [len(b.labels) for b in batches] == [3, 3, 2]


def test_a_last_batch_of_one_image_is_left_out(numbered):
    batches = train(numbered, 4)
    assert [len(b.labels) for b in batches] == [4, 4]
    assert (len(batches), batches.images) == (2, 9)


def test_every_epoch_has_a_new_order(numbered):
    batches, orders = train(numbered, 9), set()
    for epoch in range(3):
        batches.start_at(epoch)
        orders |= {tuple(numbers(b)) for b in batches}
    assert len(orders) == 3


def test_images_of_a_class_come_together_where_that_is_asked_for(numbered):
    """Five are even, four odd: two of a class at a time, and the fifth comes last."""
    batches = [numbers(b) for b in train(numbered, 2, class_group=2)]
    assert len(batches) == 4
    assert all(len({i % 2 for i in batch}) == 1 for batch in batches)
    with pytest.raises(InputError, match="class_group is 2, which does not divide batch_size 3"):
        train(numbered, 3, class_group=2)


def test_evaluation_keeps_the_order_and_every_image(numbered):
    batches = evaluation(numbered)
    assert [numbers(b) for b in batches] == [[0, 2, 4, 6], [8, 1, 3, 5], [7]]
    assert [b.labels.tolist() for b in batches] == [[0] * 4, [0, 1, 1, 1], [1]]
    assert (len(batches), batches.images) == (3, 9)


def test_evaluation_shows_the_middle(split):
    (batch,) = StreamedEvalBatches(split.take(torch.tensor([3])), 4, AS_IT_IS, image_size=20)
    image = Image.open(io.BytesIO(split.read(3)))
    box = centre_box(*image.size, 0.875)
    expected = np.asarray(image.resize((20, 20), Image.Resampling.BILINEAR, box=box))
    assert np.array_equal(batch.views[0][0].permute(1, 2, 0).byte().numpy(), expected)


def test_a_part_of_an_evaluation_shows_as_much_of_each_image(split):
    whole = StreamedEvalBatches(split, 4, AS_IT_IS, image_size=20, crop=1.0)
    (part,) = whole.take(torch.tensor([3]))
    assert torch.equal(part.views[0][0], next(iter(whole)).views[0][3])


def test_batches_are_normalised_floats_in_channels_last_layout(numbered):
    normalisation = Normalisation((10.0, 10.0, 10.0), (2.0, 2.0, 2.0))
    for batches in (
        StreamedTrainBatches(numbered, 9, normalisation, SMALL),
        StreamedEvalBatches(numbered, 9, normalisation, 8),
    ):
        (batch,) = batches
        (view,) = batch.views
        assert view.dtype == torch.float32
        assert view.shape == (9, 3, 8, 8)
        assert view.is_contiguous(memory_format=torch.channels_last)
        assert sorted(view[:, 0, 0, 0].tolist()) == [5.0 * i - 5 for i in range(9)]


# What is drawn


def test_the_same_seed_and_epoch_give_the_same_batches(split):
    assert same(list(train(split)), list(train(split)))


def test_another_seed_gives_other_batches(split):
    assert not same(list(train(split)), list(train(split, seed=1)))


def of_one(split, epoch=0, view=0, views=1, place=0, seed=0, **augmentation):
    work = _Augmented(split.store, split.index, CropAugmentation(8, **augmentation), seed)
    return work(_Key([place], epoch, views))[1][view, 0].tobytes()


def test_what_is_drawn_for_an_image_depends_on_seed_epoch_and_view(split):
    looks = {
        of_one(split, epoch, view, views=2, seed=seed)
        for epoch in (0, 1)
        for view in (0, 1)
        for seed in (0, 1)
    }
    assert len(looks) == 8


def test_two_images_are_cut_differently(tmp_path):
    content = encoded(picture(0), "PNG")
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "0.png").write_bytes(content)
    split = open_dataset("folder", tmp_path).splits["all"]
    assert of_one(split, place=0) != of_one(split, place=1)


def test_what_is_drawn_for_an_image_depends_on_nothing_else(split):
    """Not on the batch that it is in."""
    work = _Augmented(split.store, split.index, SMALL, 0)
    _, images, _ = work(_Key([5, 2, 0], 0, 2))
    for b, place in enumerate((5, 2, 0)):
        assert images[1, b].tobytes() == of_one(split, place=place, view=1, views=2)


def test_the_number_of_views_changes_none_of_them(tmp_path):
    """Of a JPEG that is small enough to be decoded as it is."""
    split = photos(tmp_path, 4, width=12, height=10)
    one, two = (list(train(split, views=v)) for v in (1, 2))
    assert torch.equal(one[0].views[0], two[0].views[0])


def test_half_of_the_images_are_mirrored(tmp_path):
    ramp = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        for i in range(50):
            Image.fromarray(ramp).save(tmp_path / kind / f"{i}.png")
    split = open_dataset("folder", tmp_path).splits["all"]
    for flip, mirrored in ((True, range(35, 66)), (False, [0])):
        (batch,) = train(split, 100, CropAugmentation(8, flip=flip))
        rises = batch.views[0][:, 0, 0, 0] < batch.views[0][:, 0, 0, -1]
        assert (~rises).sum().item() in mirrored


def test_min_scale_bounds_the_crops(split, monkeypatch):
    """At 0.9, no crop of a 40 x 30 image has less than 0.9 of its area, but for rounding."""
    areas = []

    def boxes(width, height, min_scale, rng):
        left, top, right, bottom = box = random_box(width, height, min_scale, rng)
        areas.append((right - left) * (bottom - top) / (width * height))
        return box

    monkeypatch.setattr("codistill.data.batches.streamed.random_box", boxes)
    list(train(split, 12, CropAugmentation(8, min_scale=0.9)))
    assert len(areas) == 12
    assert min(areas) > 0.88
    list(train(split, 12, CropAugmentation(8, min_scale=0.01)))
    assert min(areas) < 0.5


@pytest.mark.parametrize("start", [1, 2, 3])
def test_an_epoch_goes_on_from_any_step(split, start):
    whole, rest = train(split, views=2), train(split, views=2)
    whole.start_at(2)
    rest.start_at(2, start)
    assert same(list(rest), list(whole)[start:])


def test_the_start_holds_for_one_epoch(split):
    batches = train(split)
    batches.start_at(0, 2)
    batches.start_at(1)
    assert len(list(batches)) == 3


def test_global_random_numbers_are_neither_used_nor_drawn(split):
    augmentation = CropAugmentation(8, rand_augment=9)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = list(train(split, augmentation=augmentation))
    list(evaluation(split))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert same(list(train(split, augmentation=augmentation)), first)


# Views


def test_views_are_differently_augmented_and_decoded_once(split, monkeypatch):
    reads = []
    real = type(split.store).read
    monkeypatch.setattr(type(split.store), "read", lambda self, i: reads.append(i) or real(self, i))
    batches = list(train(split, views=3))
    assert sorted(reads) == list(range(12))
    for batch in batches:
        assert len(batch.views) == 3
        assert not torch.equal(batch.views[0], batch.views[1])
        assert not torch.equal(batch.views[1], batch.views[2])


def test_the_number_of_views_may_be_set_later(split):
    batches = train(split)
    batches.views = 2
    assert [len(b.views) for b in batches] == [2, 2, 2]


# RandAugment


def test_rand_augment_changes_images_and_is_drawn_from_the_seed(split):
    strong = CropAugmentation(8, rand_augment=20)
    first = list(train(split, augmentation=strong))
    assert same(first, list(train(split, augmentation=strong)))
    assert not same(first, list(train(split)))
    assert of_one(split, rand_augment=20, epoch=0) != of_one(split, rand_augment=20, epoch=1)


def test_rand_augment_without_torchvision_is_answered_with_its_installation(split, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'codistill\[vision\]'"):
        train(split, augmentation=CropAugmentation(8, rand_augment=9))


@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (8, 1)])
def test_too_few_images_to_learn_from_are_refused(numbered, n, batch_size):
    with pytest.raises(InputError, match=rf"not {n} images? with batch_size {batch_size}"):
        train(numbered.take(torch.arange(n)), batch_size)
