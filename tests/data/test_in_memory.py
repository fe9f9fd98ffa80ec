"""Batches in memory: each image once, augmented as if one by one, and the same from any start."""

import numpy as np
import pytest
import torch
from PIL import Image
from toys import C, toy_split

from codistill import InputError, load_data
from codistill.data.batches.in_memory import Augmentation, EvalBatches, TrainBatches, crop_and_flip
from codistill.data.dataset import Split, hold_out, take_per_class
from codistill.data.normalisation import Normalisation
from codistill.importing import optional

AS_IT_IS = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def numbered(n, size=4):
    """Split whose image i is filled with i."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, size, size, 3)
    return Split(images.contiguous(), torch.arange(n) % 3)


def numbers(batch):
    return batch.views[0][:, 0, 0, 0].int().tolist()


def augmented(n=12, batch_size=4, views=1, seed=0, **options):
    split = toy_split(n)
    return TrainBatches(split, batch_size, AS_IT_IS, Augmentation(**options), views, seed)


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.labels, b.labels)
        and all(torch.equal(v, w) for v, w in zip(a.views, b.views, strict=True))
        for a, b in zip(first, second, strict=True)
    )


# Crops and flips


@pytest.mark.parametrize(
    ("pad_mode", "numpy_mode"), [("reflect", "reflect"), ("zeros", "constant")]
)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9), (9, 5)])
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_crop_and_flip_equal_numpy_one_by_one(pad_mode, numpy_mode, height, width, pad):
    split = toy_split(6, height, width)
    places = [(i, t, x, f) for i in range(2) for t in range(2 * pad + 1)
              for x in range(2 * pad + 1) for f in (False, True)]  # fmt: skip
    index, top, left, flips = (torch.tensor(column) for column in zip(*places, strict=True))
    got = crop_and_flip(split.images, index + 3, top, left, flips, pad, pad_mode).numpy()
    for (i, t, x, f), cut in zip(places, got, strict=True):
        padded = np.pad(split.images[i + 3].numpy(), ((pad, pad), (pad, pad), (0, 0)), numpy_mode)
        expected = padded[t : t + height, x : x + width]
        assert np.array_equal(cut, expected[:, ::-1] if f else expected)


@pytest.mark.parametrize(("pad_mode", "theirs"), [("reflect", "reflect"), ("zeros", "constant")])
def test_crop_and_flip_equal_torchvision_on_pil_images(pad_mode, theirs):
    optional("torchvision", "this test")
    from torchvision.transforms import functional as V

    split, n = toy_split(40, 32, 32), 200
    index = torch.arange(n) % len(split)
    top, left, flips = Augmentation().draw(n, torch.Generator().manual_seed(0))
    got = crop_and_flip(split.images, index, top, left, flips, 4, pad_mode)
    for i, t, x, flip, cut in zip(index, top, left, flips, got.numpy(), strict=True):
        image = V.pad(Image.fromarray(split.images[i].numpy()), 4, padding_mode=theirs)
        image = V.crop(image, int(t), int(x), 32, 32)
        assert np.array_equal(cut, np.asarray(V.hflip(image) if flip else image))


@pytest.mark.parametrize("pad_mode", ["reflect", "zeros"])
def test_a_batch_is_cut_where_the_augmentation_says(pad_mode):
    split = toy_split(12)
    train = TrainBatches(split, 12, AS_IT_IS, Augmentation(pad=2, pad_mode=pad_mode))
    possible = set()
    for image in split.images.numpy():
        mode = "reflect" if pad_mode == "reflect" else "constant"
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode)
        for t in range(5):
            for x in range(5):
                cut = padded[t : t + 8, x : x + 8]
                possible |= {cut.tobytes(), cut[:, ::-1].tobytes()}
    (batch,) = train
    for view in batch.views[0]:
        assert view.permute(1, 2, 0).to(torch.uint8).numpy().tobytes() in possible


def test_every_place_is_drawn_and_half_of_the_images_are_flipped():
    top, left, flips = Augmentation(pad=2).draw(2000, torch.Generator().manual_seed(0))
    assert set(zip(top.tolist(), left.tolist(), strict=True)) == {
        (t, x) for t in range(5) for x in range(5)
    }
    assert 900 < flips.sum() < 1100


def test_without_flip_no_image_is_flipped():
    _, _, flips = Augmentation(flip=False).draw(100, torch.Generator().manual_seed(0))
    assert not flips.any()


def test_padding_of_0_without_flip_leaves_images_as_they_are():
    split = toy_split(6)
    plain = list(TrainBatches(split, 3, AS_IT_IS))
    assert same(list(TrainBatches(split, 3, AS_IT_IS, Augmentation(pad=0, flip=False))), plain)


# One pass


def test_an_epoch_has_every_image_once():
    batches = list(TrainBatches(numbered(10), 4, AS_IT_IS))
    assert sorted(i for b in batches for i in numbers(b)) == list(range(10))
    assert [len(b.labels) for b in batches] == [4, 4, 2]


def test_an_image_keeps_its_label():
    for batch in TrainBatches(numbered(10), 4, AS_IT_IS):
        assert batch.labels.tolist() == [i % 3 for i in numbers(batch)]


def test_an_augmented_image_keeps_its_label():
    split = numbered(10, size=8)  # every pixel says which image it is, whatever the crop
    for batch in TrainBatches(split, 4, AS_IT_IS, Augmentation()):
        assert batch.labels.tolist() == [i % 3 for i in numbers(batch)]


def test_every_epoch_has_a_new_order():
    train = TrainBatches(numbered(10), 10, AS_IT_IS)
    orders = []
    for epoch in range(3):
        train.start_at(epoch)
        orders += [tuple(numbers(b)) for b in train]
    assert len(set(orders)) == 3


def test_the_order_is_not_that_of_the_split():
    (batch,) = TrainBatches(numbered(10), 10, AS_IT_IS)
    assert numbers(batch) != list(range(10))


def test_a_last_batch_of_one_image_is_left_out():
    train = TrainBatches(numbered(9), 4, AS_IT_IS)
    assert [len(b.labels) for b in train] == [4, 4]
    assert len(train) == 2


@pytest.mark.parametrize("n", [8, 9, 10])
def test_the_length_is_the_number_of_batches(n):
    train = TrainBatches(numbered(n), 4, AS_IT_IS)
    assert len(list(train)) == len(train)


# Images of a class that come together


def by_class(n, batch_size=4, class_group=2, seed=0, epoch=0):
    train = TrainBatches(numbered(n), batch_size, AS_IT_IS, seed=seed, class_group=class_group)
    train.start_at(epoch)
    return [numbers(batch) for batch in train]


@pytest.mark.parametrize(("batch_size", "class_group"), [(4, 2), (8, 2), (6, 3), (12, 4)])
def test_images_of_a_class_come_together_and_each_once(batch_size, class_group):
    batches = by_class(36, batch_size, class_group)
    assert sorted(i for batch in batches for i in batch) == list(range(36))
    for batch in batches:
        for place in range(0, len(batch), class_group):
            assert len({i % 3 for i in batch[place : place + class_group]}) == 1


def test_what_is_left_of_a_class_comes_last():
    """11, 10 and 10 images of three classes, three at a time: 2, 1 and 1 are left."""
    order = [i for batch in by_class(31, 12, 3) for i in batch]
    assert sorted(order) == list(range(31))
    assert sorted(i % 3 for i in order[27:]) == [0, 0, 1, 2]


def test_images_and_classes_that_come_together_are_drawn_anew_by_epoch_and_seed():
    def groups(**of):
        flat = [i for batch in by_class(36, **of) for i in batch]
        pairs = [tuple(flat[i : i + 2]) for i in range(0, 36, 2)]
        return {frozenset(p) for p in pairs}, tuple(p[0] % 3 for p in pairs)

    (same, order), again = groups(), groups()
    assert (same, order) == again
    for of in ({"epoch": 1}, {"seed": 1}):
        others, another = groups(**of)
        assert others != same
        assert another != order
    assert order != tuple(sorted(order))


def test_one_of_a_class_is_any_order():
    assert by_class(12, class_group=1) == by_class(12, class_group=0)


def test_an_order_by_class_goes_on_from_any_step():
    whole, rest = (TrainBatches(numbered(36), 4, AS_IT_IS, class_group=2) for _ in range(2))
    whole.start_at(2)
    rest.start_at(2, 5)
    assert same(list(rest), list(whole)[5:])


@pytest.mark.parametrize("class_group", [3, 8])
def test_a_batch_that_would_cut_a_class_apart_is_refused(class_group):
    with pytest.raises(
        InputError, match=f"class_group is {class_group}, which does not divide .* 4"
    ):
        by_class(12, class_group=class_group)


# The same batch from any start


def test_the_same_seed_and_epoch_give_the_same_batches():
    assert same(list(augmented()), list(augmented()))


def test_another_seed_gives_other_batches():
    assert not same(list(augmented(seed=0)), list(augmented(seed=1)))


def test_another_epoch_is_augmented_differently():
    split = toy_split(2)
    train = TrainBatches(split, 2, AS_IT_IS, Augmentation(pad=3))
    looks = set()
    for epoch in range(8):
        train.start_at(epoch)
        looks |= {v.numpy().tobytes() for b in train for v in b.views[0]}
    assert len(looks) > 8


def test_steps_of_an_epoch_are_augmented_differently():
    images = toy_split(1).images.expand(20, 8, 8, 3).contiguous()
    train = TrainBatches(Split(images, torch.zeros(20).long()), 2, AS_IT_IS, Augmentation(pad=3))
    assert len({b.views[0].numpy().tobytes() for b in train}) == 10


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_an_epoch_goes_on_from_any_step(start):
    whole, rest = augmented(views=2), augmented(views=2)
    whole.start_at(2)
    rest.start_at(2, start)
    assert same(list(rest), list(whole)[start:])


def test_the_start_holds_for_one_epoch():
    train = augmented()
    train.start_at(0, 2)
    train.start_at(1)
    assert len(list(train)) == 3


def test_global_random_numbers_are_neither_used_nor_drawn():
    torch.manual_seed(0)
    first, state = list(augmented()), torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert same(list(augmented()), first)


# Views


def test_there_are_as_many_views_as_asked_for():
    assert [len(b.views) for b in augmented(views=3)] == [3, 3, 3]


def test_views_are_augmented_differently():
    for batch in augmented(views=2):
        assert not torch.equal(*batch.views)


def test_views_show_the_same_images():
    split = numbered(10, size=8)
    for batch in TrainBatches(split, 4, AS_IT_IS, Augmentation(), views=2):
        assert torch.equal(batch.views[0][:, 0, 0, 0], batch.views[1][:, 0, 0, 0])


def test_without_augmentation_there_are_as_many_views_too():
    (batch,) = TrainBatches(numbered(4), 4, AS_IT_IS, views=3)
    assert len(batch.views) == 3


@pytest.mark.parametrize("augmentation", [None, Augmentation(pad=2)])
def test_batches_are_in_channels_last_layout(augmentation):
    split = toy_split(8)
    for batch in TrainBatches(split, 4, AS_IT_IS, augmentation):
        assert batch.views[0].is_contiguous(memory_format=torch.channels_last)
        assert batch.views[0].dtype == torch.float32


def test_evaluation_batches_are_in_channels_last_layout():
    for batch in EvalBatches(toy_split(8), 4, AS_IT_IS):
        assert batch.views[0].is_contiguous(memory_format=torch.channels_last)


# Evaluation batches


def test_evaluation_keeps_the_order_of_the_split_and_every_image():
    batches = list(EvalBatches(numbered(9), 4, AS_IT_IS))
    assert [numbers(b) for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert torch.cat([b.labels for b in batches]).tolist() == [i % 3 for i in range(9)]


def test_the_length_of_an_evaluation_counts_the_last_batch():
    assert [len(EvalBatches(numbered(n), 4, AS_IT_IS)) for n in (8, 9)] == [2, 3]


# Normalisation


def test_a_split_normalised_by_its_own_has_mean_0_and_standard_deviation_1():
    split = toy_split(20, 7, 9)
    split.images[..., 1] //= 3  # channels that differ
    pixels = Normalisation.of(split)(split.images).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(pixels.mean(dim=1), torch.zeros(3).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        pixels.std(dim=1, correction=0), torch.ones(3).double(), rtol=0, atol=1e-5
    )


def test_normalisation_is_in_units_of_pixels():
    split = toy_split(20)
    pixels = split.images[..., 2].double()
    of = Normalisation.of(split)
    assert of.mean[2] == pytest.approx(pixels.mean().item(), rel=1e-12)
    assert of.std[2] == pytest.approx(pixels.std(correction=0).item(), rel=1e-9)


def test_normalisation_is_the_same_in_every_row_and_column():
    split = toy_split(4, 5, 7)
    of = Normalisation.of(split)
    expected = (split.images.numpy() - np.float32(of.mean)) / np.float32(of.std)
    assert np.array_equal(of(split.images).permute(0, 2, 3, 1).numpy(), expected)


def test_normalisation_takes_lists_as_files_hold_them():
    images = torch.arange(12, dtype=torch.uint8).view(1, 2, 2, 3)
    lists = Normalisation([1.0, 2.0, 3.0], [2.0, 2.0, 4.0])
    tuples = Normalisation((1.0, 2.0, 3.0), (2.0, 2.0, 4.0))
    assert lists == tuples
    assert torch.equal(lists(images), tuples(images))


def test_normalisation_goes_by_channel():
    images = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 1, 1, 3)
    normal = Normalisation((10.0, 10.0, 10.0), (1.0, 2.0, 4.0))
    assert normal(images).flatten().tolist() == [0.0, 5.0, 5.0]


# Holding out


def classes(split):
    return torch.bincount(split.labels, minlength=3).tolist()


def unequal():
    split = numbered(60)
    return Split(split.images, torch.tensor([0] * 30 + [1] * 20 + [2] * 10))


def contents(split):
    return split.images[:, 0, 0, 0].tolist()


def test_every_class_gives_its_share():
    train, val = hold_out(unequal(), 0.2, seed=0)
    assert (classes(train), classes(val)) == ([24, 16, 8], [6, 4, 2])


def test_what_is_held_out_is_not_trained_on():
    train, val = hold_out(unequal(), 0.2, seed=0)
    assert sorted(contents(train) + contents(val)) == list(range(60))


def test_a_held_out_image_keeps_its_label():
    split = unequal()
    for part in hold_out(split, 0.2, seed=0):
        assert part.labels.tolist() == [int(split.labels[i]) for i in contents(part)]


def test_the_same_seed_holds_out_the_same_images():
    assert contents(hold_out(unequal(), 0.2, 3)[1]) == contents(hold_out(unequal(), 0.2, 3)[1])


def test_another_seed_holds_out_other_images():
    assert contents(hold_out(unequal(), 0.2, 3)[1]) != contents(hold_out(unequal(), 0.2, 4)[1])


def test_a_fraction_of_0_holds_out_nothing():
    train, val = hold_out(unequal(), 0.0, seed=0)
    assert contents(train) == list(range(60))
    assert len(val) == 0


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 5.0])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(InputError, match=f"val_fraction is {fraction}: .* from 0 to below 1"):
        hold_out(unequal(), fraction, seed=0)


# What is refused


@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (8, 1), (8, 0)])
def test_too_few_images_to_learn_from_are_refused(n, batch_size):
    with pytest.raises(InputError, match=rf"not {n} images? with batch_size {batch_size}"):
        TrainBatches(numbered(n), batch_size, AS_IT_IS)


@pytest.mark.parametrize("pad", [4, 5])
def test_a_padding_as_wide_as_the_image_is_refused(pad):
    with pytest.raises(InputError, match=f"pad is {pad}, but the images are only 4 pixels"):
        TrainBatches(numbered(8), 4, AS_IT_IS, Augmentation(pad=pad))


def test_a_part_of_every_class_is_drawn_by_its_seed():
    split = toy_split(n=40)
    few, more = (take_per_class(split, n, seed=3) for n in (2, 5))
    assert few.labels.bincount().tolist() == [2] * C
    images = {image.numpy().tobytes() for image in more.images}
    assert {image.numpy().tobytes() for image in few.images} < images
    other = take_per_class(split, 2, seed=4)
    assert not torch.equal(few.images, other.images)
    assert len(take_per_class(split, 99, seed=3)) == 40


def test_a_part_of_every_class_is_taken_of_what_is_not_held_out():
    whole = load_data("digits", val_fraction=0.1)
    part = load_data("digits", val_fraction=0.1, images_per_class=7)
    assert part.train.split.labels.bincount().tolist() == [7] * 10
    assert torch.equal(part.val.split.labels, whole.val.split.labels)
    assert part.fingerprint == whole.fingerprint
    with pytest.raises(InputError, match="images_per_class is 0: it has to be above 0"):
        load_data("digits", images_per_class=0)
