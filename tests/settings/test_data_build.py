"""Every setting of the data reaches the batches, and what was resolved is written down."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_fakes import photos, write_classes
from PIL import Image
from toys import toy_split

from codistill.data import Augmentation, Normalisation, StreamedEvalBatches, TrainBatches
from codistill.data.batches.in_memory import EvalBatches
from codistill.data.batches.photograph import reencoded
from codistill.data.normalisation import IMAGENET
from codistill.errors import InputError
from codistill.settings.build_data import build_data, describe_data
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def root(tmp_path):
    photos(tmp_path / "photos", 60)
    return str(tmp_path / "photos")


def build(root, name="folder", seed=0, batch_size=8, **settings):
    data = DataConfig(name=name, root=root, **{"workers": 0, "image_size": 8} | settings)
    return build_data(Config(data=data, batch_size=batch_size, seed=seed), CPU)


def refusal(**settings):
    with pytest.raises(InputError) as caught:
        build_data(Config(data=DataConfig(**settings)), CPU)
    return str(caught.value)


def test_a_folder_is_divided_and_cut_as_the_settings_say(root):
    data = build(root, min_scale=0.5, flip=False, rand_augment=3)
    assert (data.train.images, {n: b.images for n, b in data.evaluate_on.items()}) == (
        44,
        {"val": 4, "test": 12},
    )
    a = data.train.augmentation
    assert (a.image_size, a.min_scale, a.flip, a.rand_augment) == (8, 0.5, False, 3)
    assert data.image_size == (8, 8)
    assert data.classes == ("cat", "dog")
    for batches in (data.train, *data.evaluate_on.values()):
        assert next(iter(batches)).views[0].shape[2:] == (8, 8)


def test_images_of_a_class_come_together_as_the_settings_say(root):
    streamed = build(root, class_group=4).train
    in_memory = build(None, "digits", image_size=None, workers=None, class_group=4).train
    for batches in (streamed, in_memory):
        assert batches.class_group == 4
        labels = next(iter(batches)).labels
        assert all(len(four.unique()) == 1 for four in labels.split(4))


def test_with_a_cache_all_images_are_read_from_copies(root, cache):
    data, without = (build(root, image_size=14, cache=side) for side in (16, 0))
    assert data.settings.cache == 16
    assert data.fingerprint == without.fingerprint
    for batches, plain in (
        (data.train, without.train),
        *((data.evaluate_on[n], without.evaluate_on[n]) for n in ("val", "test")),
    ):
        (content, *_), (image, *_) = ([b.split.read(i) for i in (0, 1)] for b in (batches, plain))
        assert content == reencoded(image, 16)
    (folder,) = cache.iterdir()
    assert data.taken[-1].startswith("copies with a short side of 16")
    assert f"{folder}, where" in data.taken[-1]
    assert without.taken == data.taken[:-1]


def test_copies_have_enough_pixels_for_what_evaluation_cuts_out(root):
    build(root, image_size=14, cache=16)
    with pytest.raises(InputError, match="cache is 15, .* cut to 14 pixels: give 16 "):
        build(root, image_size=14, cache=15)
    assert refusal(name="digits", cache=256).startswith("data.cache is not for digits")


def test_whether_a_grey_image_is_dark_is_seen_in_the_images_and_not_in_copies(root):
    for i in range(32):
        grey = Image.fromarray(np.full((30, 40), 200, np.uint16))
        grey.save(Path(root, "cat", f"dark{i}.png"))
    with pytest.raises(InputError, match="nearly black"):
        build(root, cache=16)


def test_runs_with_other_copies_are_of_another_recipe():
    assert Config(data=DataConfig(cache=256)).recipe()["data.cache"] == 256


def test_what_was_resolved_gives_the_same_batches(root):
    first = build(root, val_fraction=0.2, test_fraction=0.3, normalisation="data")
    again = build_data(Config(data=first.settings, batch_size=8), CPU)
    assert again.settings == first.settings
    assert again.fingerprint == first.fingerprint
    for name in ("val", "test"):
        a, b = (list(d.evaluate_on[name]) for d in (first, again))
        assert all(torch.equal(x.views[0], y.views[0]) for x, y in zip(a, b, strict=True))
    assert all(
        torch.equal(x.views[0], y.views[0]) for x, y in zip(first.train, again.train, strict=True)
    )


def test_everything_is_written_out(root, monkeypatch):
    monkeypatch.chdir(root)
    s = build(".", workers=None, image_size=None).settings
    assert s.root == root
    assert (s.val_fraction, s.test_fraction, s.image_size, s.min_scale) == (0.1, 0.2, 224, 0.08)
    assert (s.flip, s.pad) == (True, None)
    assert s.workers is not None
    assert s.workers >= 1
    assert (s.mean, s.std) == (list(IMAGENET.mean), list(IMAGENET.std))


def test_the_configuration_of_an_older_run_is_understood(tmp_path):
    text = Config().to_yaml()
    old = {"label_column", "image_size", "min_scale", "rand_augment", "workers", "test_fraction"}
    old |= {"normalisation", "class_group"}
    lines = [x for x in text.splitlines() if x.strip().partition(":")[0] not in old]
    lines = [x.replace("val_fraction: null", "val_fraction: 0.1") for x in lines]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    config = Config.read(tmp_path / "config.yaml")
    assert config.data == DataConfig(val_fraction=0.1)


def test_of_a_set_in_memory_the_fraction_is_resolved_too():
    data = build_data(Config(), CPU)
    assert data.settings.val_fraction == 0.1
    assert (data.settings.pad, data.settings.flip, data.settings.workers) == (1, False, None)
    none = build_data(Config(data=DataConfig(val_fraction=0.0)), CPU)
    assert (none.settings.val_fraction, list(none.evaluate_on)) == (0.0, ["test"])


@pytest.fixture
def cinic10(tmp_path):
    for i, (split, count) in enumerate((("train", 4), ("valid", 2), ("test", 1))):
        kinds = {f"kind{k}": count for k in range(10)}
        write_classes(tmp_path / "cinic" / split, kinds, seed=100 * i, width=32, height=32)
    return str(tmp_path / "cinic")


@pytest.mark.parametrize(("fraction", "sizes"), [(None, (40, 20, 10)), (0.5, (30, 30, 10))])
def test_own_validation_images_choose_unless_a_fraction_is_given(cinic10, fraction, sizes):
    data = build_data(Config(data=DataConfig("cinic10", cinic10, val_fraction=fraction)), CPU)
    on = data.evaluate_on
    assert (data.train.images, on["val"].images, on["test"].images) == sizes
    assert data.settings.val_fraction == fraction


# Normalisation


def test_images_of_a_folder_are_normalised_as_those_of_imagenet_or_by_their_own(root):
    assert build(root).normalisation == IMAGENET
    assert build(root, normalisation="imagenet").normalisation == IMAGENET
    own = build(root, normalisation="data")
    plain = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    batches = StreamedEvalBatches(own.train.split, 100, plain, 8)
    (batch,) = batches
    assert own.normalisation.mean == pytest.approx(
        batch.views[0].mean((0, 2, 3)).tolist(), rel=1e-5
    )
    std = batch.views[0].transpose(0, 1).flatten(1).std(dim=1, correction=0)
    assert own.normalisation.std == pytest.approx(std.tolist(), rel=1e-5)


def test_of_many_images_some_that_are_evenly_chosen_are_measured(root, monkeypatch):
    monkeypatch.setattr("codistill.settings.build_data._MEASURED", 5)
    seen = []
    real = StreamedEvalBatches.pixels

    def pixels(self):
        seen.append(self.split.index)
        return real(self)

    monkeypatch.setattr(StreamedEvalBatches, "pixels", pixels)
    train = build(root, normalisation="data").train.split
    assert seen[0].tolist() == train.index[[0, 11, 22, 32, 43]].tolist()


def test_images_in_memory_may_be_normalised_as_those_of_imagenet():
    data = build_data(Config(data=DataConfig(normalisation="imagenet")), CPU)
    assert data.normalisation == IMAGENET
    own = build_data(Config(), CPU)
    assert own.normalisation == Normalisation.of(own.train.split)


@pytest.mark.parametrize("name", ["folder", "digits"])
def test_what_is_given_wins(name, root):
    settings = {"root": root, "image_size": 8, "workers": 0} if name == "folder" else {}
    data = DataConfig(name, mean=[1.0, 2.0, 3.0], normalisation="imagenet", **settings)
    found = build_data(Config(data=data), CPU).normalisation
    assert found == Normalisation((1.0, 2.0, 3.0), IMAGENET.std)


# RandAugment in memory


def in_memory(rand_augment=0, seed=0, views=2, start=(0, 0)):
    plain = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    a = Augmentation(pad=1, rand_augment=rand_augment)
    batches = TrainBatches(toy_split(12), 4, plain, a, views, seed)
    batches.start_at(*start)
    return [v.numpy().tobytes() for b in batches for v in b.views]


def test_rand_augment_in_memory_is_drawn_from_seed_epoch_and_step():
    whole = in_memory(9)
    assert whole == in_memory(9)
    assert whole != in_memory()
    assert whole != in_memory(20)
    assert whole != in_memory(9, seed=1)
    assert in_memory(9, start=(0, 1)) == whole[2:]
    assert len(set(whole)) == 6


def test_rand_augment_differs_between_images_views_steps_and_epochs():
    split = dataclasses.replace(toy_split(1), labels=torch.zeros(1).long())
    split = split.take(torch.zeros(16).long())
    plain = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    a = Augmentation(pad=0, flip=False, rand_augment=9)
    batches = TrainBatches(split, 8, plain, a, views=2)
    looks = []
    for epoch in range(2):
        batches.start_at(epoch)
        for batch in batches:
            looks += [{image.numpy().tobytes() for image in view} for view in batch.views]
    assert all(len(look) > 4 for look in looks)
    assert len({frozenset(look) for look in looks}) == len(looks) == 8


def test_rand_augment_in_memory_keeps_the_layout_and_the_random_numbers():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    plain = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    (batch,) = TrainBatches(toy_split(4), 4, plain, Augmentation(rand_augment=9, pad=1))
    assert batch.views[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.get_rng_state(), state)


def test_rand_augment_reaches_a_set_in_memory():
    data = build_data(Config(data=DataConfig(rand_augment=5)), CPU)
    assert data.train.augmentation.rand_augment == 5


# What does not apply, and what makes no sense


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"name": "digits", "image_size": 32}, "data.image_size is not for digits, which is held"),
        ({"name": "digits", "min_scale": 0.5}, "data.min_scale is not for digits"),
        ({"name": "digits", "workers": 2}, "data.workers is not for digits"),
        ({"name": "digits", "test_fraction": 0.5}, "data.test_fraction is not for digits"),
        ({"name": "folder", "root": ".", "pad": 4}, "data.pad is not for folder, which is cut"),
        ({"name": "folder", "root": ".", "pad_mode": "zeros"}, "data.pad_mode is not for folder"),
        ({"name": "foldr"}, "did you mean 'folder'?"),
        ({"name": "folder"}, "data set 'folder' needs a place: give it by --data.root"),
        ({"image_size": 4}, "data.image_size is 4: it has to be at least 8 and at most 4096"),
        ({"min_scale": 0.0}, "data.min_scale is 0.0"),
        ({"min_scale": 1.5}, "data.min_scale is 1.5"),
        ({"rand_augment": 31}, "data.rand_augment is 31"),
        ({"rand_augment": -1}, "data.rand_augment is -1"),
        ({"workers": -1}, "data.workers is -1"),
        ({"test_fraction": 0.0}, "data.test_fraction is 0"),
        ({"test_fraction": 1.0}, "data.test_fraction is 1.0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, answer):
    assert answer in refusal(**settings)


def test_a_test_fraction_for_what_is_divided_is_refused(tmp_path):
    for split in ("train", "test"):
        write_classes(tmp_path / split, {"cat": 4, "dog": 4})
    assert "data.test_fraction is for data sets without test images" in refusal(
        name="folder", root=str(tmp_path), test_fraction=0.5
    )


# What is said before training


def test_what_is_remarkable_about_the_classes_is_noted(tmp_path):
    write_classes(tmp_path / "train", {"ant": 60, "bee": 4, "cow": 0})
    write_classes(tmp_path / "test", {"ant": 2, "dog": 1})
    assert build(str(tmp_path), val_fraction=0.0).notes == (
        "no images in the class folder 'train/cow'",
        "no image to train on has the class 'dog'",
        "fewer than 5 images to train on have the class 'bee'",
        "the largest class has 15 times as many images as the smallest",
        "no image of test has the class 'bee'",
    )


def test_a_balanced_set_gives_no_note(root):
    assert build(root).notes == ()
    assert build_data(Config(), CPU).notes == ()


# What inspect asks


def test_what_is_known_of_a_data_set_without_reading_it(root):
    assert describe_data(DataConfig("cifar100")) == (100, (32, 32))
    assert describe_data(DataConfig("tiny_imagenet")) == (200, (64, 64))
    assert describe_data(DataConfig("imagenet")) == (1000, (224, 224))
    assert describe_data(DataConfig("imagenet", image_size=160)) == (1000, (160, 160))
    assert describe_data(DataConfig("folder", root, image_size=64)) == (2, (64, 64))
    with pytest.raises(InputError, match="needs a place"):
        describe_data(DataConfig("folder"))


def test_evaluation_batches_know_how_many_images_there_are():
    plain = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert EvalBatches(toy_split(7), 4, plain).images == 7
    assert TrainBatches(toy_split(7), 4, plain).images == 7
