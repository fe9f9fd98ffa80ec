"""Folders as people and publishers lay them out: what is trained on, chosen by, reported."""

import os
from pathlib import Path

import pytest
import torch
from data_fakes import refusal
from photo_fakes import encoded, picture, write_classes
from PIL import Image

from codistill.data import load_dataset, open_dataset
from codistill.data.division import divide
from codistill.errors import InputError
from codistill.names import DATASETS

pytestmark = pytest.mark.usefixtures("cache")


def counts(root, name="folder"):
    found = open_dataset(name, root)
    C = len(found.classes)
    return {s: part.labels.bincount(minlength=C).tolist() for s, part in found.splits.items()}


def names(split):
    return [split.name(i) for i in range(len(split))]


# Your own folders


@pytest.mark.parametrize(
    ("val", "test"), [("val", "test"), ("valid", "testing"), ("Validation", "Test")]
)
def test_splits_are_found_by_the_names_of_folders(tmp_path, val, test):
    for folder, count in (("train", 4), (val, 2), (test, 3)):
        write_classes(tmp_path / folder, {"cat": count, "dog": 1})
    assert counts(tmp_path) == {"train": [4, 1], "val": [2, 1], "test": [3, 1]}


def test_class_folders_alone_are_to_be_divided(tmp_path):
    write_classes(tmp_path, {"cat": 2, "bird": 3})
    found = open_dataset("folder", tmp_path)
    assert found.classes == ("bird", "cat")
    assert names(found.splits["all"])[:4] == [f"bird/{i:03d}.jpg" for i in range(3)] + [
        "cat/000.jpg"
    ]


def test_train_alone_is_to_be_divided(tmp_path):
    write_classes(tmp_path / "train", {"cat": 2, "bird": 3})
    assert counts(tmp_path) == {"all": [3, 2]}


def test_a_class_may_be_called_train(tmp_path):
    write_classes(tmp_path, {"car": 2, "train": 3, "plane": 1})
    assert open_dataset("folder", tmp_path).classes == ("car", "plane", "train")


def test_images_may_lie_deeper_inside_a_class(tmp_path):
    write_classes(tmp_path / "cat", {"black": 2, "white": 1})
    write_classes(tmp_path, {"dog": 1})
    assert counts(tmp_path) == {"all": [3, 1]}


def test_links_are_followed_and_a_link_to_above_is_no_trap(tmp_path):
    write_classes(tmp_path / "elsewhere", {"cat": 2, "dog": 1})
    (tmp_path / "root").mkdir()
    for kind in ("cat", "dog"):
        (tmp_path / "root" / kind).symlink_to(tmp_path / "elsewhere" / kind)
    (tmp_path / "elsewhere" / "cat" / "up").symlink_to(tmp_path / "elsewhere" / "cat")
    assert counts(tmp_path / "root") == {"all": [2, 1]}


def test_hidden_and_other_files_are_left_out_and_others_told(tmp_path):
    write_classes(tmp_path, {"cat": 2, "dog": 1})
    (tmp_path / "cat" / ".hidden.jpg").write_text("")
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "cat" / "a.HEIC").write_text("")
    (tmp_path / "cat" / "b.txt").write_text("")
    (tmp_path / "dog" / "c.txt").write_text("")
    found = open_dataset("folder", tmp_path)
    assert len(found.splits["all"]) == 3
    assert found.notes == (
        "files without the suffix of an image, which are not used: 2 .txt, 1 .heic",
    )


def test_suffixes_count_in_any_case(tmp_path):
    write_classes(tmp_path, {"cat": 2, "dog": 1})
    (tmp_path / "dog" / "000.jpg").rename(tmp_path / "dog" / "000.JPEG")
    assert counts(tmp_path) == {"all": [2, 1]}


def test_an_empty_class_folder_is_told(tmp_path):
    write_classes(tmp_path / "train", {"cat": 2, "dog": 1, "ox": 0})
    write_classes(tmp_path / "test", {"cat": 2, "dog": 0})
    found = open_dataset("folder", tmp_path)
    assert found.notes == ("no images in the class folder 'train/ox', 'test/dog'",)
    assert found.classes == ("cat", "dog")


def test_a_class_that_only_the_test_images_have_is_a_class(tmp_path):
    write_classes(tmp_path / "train", {"cat": 2, "dog": 1})
    write_classes(tmp_path / "test", {"bird": 1, "dog": 1})
    assert counts(tmp_path) == {"train": [0, 2, 1], "test": [1, 0, 1]}


def test_a_name_that_is_no_text_is_read(tmp_path):
    write_classes(tmp_path, {"cat": 2, "dog": 1})
    strange = os.fsencode(tmp_path) + b"/dog/\xff\xfe.jpg"
    with open(strange, "wb") as file:
        file.write(encoded(picture(9)))
    split = open_dataset("folder", tmp_path).splits["all"]
    assert split.read(3) == encoded(picture(9))


@pytest.mark.parametrize(
    ("folders", "answer"),
    [
        ({"test": {"cat": 1, "dog": 1}, "val": {"cat": 1}}, "has test/ and val/ but no train/"),
        ({"train": {"cat": 1, "dog": 1}, "val": {}, "valid": {}}, "both val/ and valid/"),
        ({"cat": {}}, "no images in class folders"),
        ({"train": {"cat": 3}, "test": {"cat": 1}}, "has images of 'cat' only"),
        ({"train": {}, "test": {"cat": 1}}, "train has no folders in it"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused(tmp_path, folders, answer):
    for folder, kinds in folders.items():
        write_classes(tmp_path / folder, kinds)
        (tmp_path / folder).mkdir(exist_ok=True)
    assert answer in refusal("folder", tmp_path)


def test_a_missing_root_is_named(tmp_path):
    assert f"{tmp_path}/no does not exist" in refusal("folder", tmp_path / "no")
    assert "give it by --data.root" in refusal("folder", None)


def test_what_is_held_in_memory_is_not_listed_and_the_other_way_round(tmp_path):
    assert "cifar10 is held in memory" in refusal("cifar10", tmp_path)
    with pytest.raises(InputError, match="folder is not held in memory"):
        load_dataset("folder", tmp_path)
    assert "did you mean 'folder'?" in refusal("folders", tmp_path)
    assert "label_column is for tables" in refusal("folder", tmp_path, label_column="x")


# The fingerprint


def test_the_fingerprint_is_that_of_names_sizes_and_labels(tmp_path):
    def fingerprint(root):
        return open_dataset("folder", root).fingerprint

    one = write_classes(tmp_path / "one", {"cat": 2, "dog": 1})
    other = write_classes(tmp_path / "other", {"cat": 2, "dog": 1})
    first = fingerprint(one)
    assert first == fingerprint(other)
    assert len(first) == 64
    with open(other / "dog" / "000.jpg", "ab") as file:
        file.write(b"x")
    longer = fingerprint(other)
    (one / "dog" / "000.jpg").rename(one / "cat" / "zzz.jpg")
    write_classes(one, {"dog": 1})
    assert len({first, longer, fingerprint(one)}) == 3


# Which images are for what


class Labels:
    """A split that knows its images by number."""

    def __init__(self, numbers, labels):
        self.numbers, self.labels = list(numbers), torch.tensor(labels)

    def __len__(self):
        return len(self.numbers)

    def take(self, index):
        return Labels([self.numbers[i] for i in index], self.labels[index].tolist())

    def join(self, other):
        labels = [*self.labels.tolist(), *other.labels.tolist()]
        return Labels([*self.numbers, *other.numbers], labels)


def parts(**splits):
    """Each split of two classes, numbered so that its name can be told: val from 1000 on."""
    base = {"train": 0, "val": 1000, "test": 2000, "all": 3000}
    return {
        name: Labels(range(base[name], base[name] + n), [i % 2 for i in range(n)])
        for name, n in splits.items()
    }


def origins(split):
    return {number // 1000 for number in split.numbers}


def test_own_validation_images_choose():
    d = divide(parts(train=20, val=6, test=4), None, None, 0)
    assert (len(d.train), len(d.val), len(d.test)) == (20, 6, 4)
    assert (origins(d.train), origins(d.val), origins(d.test)) == ({0}, {1}, {2})
    assert d.val_fraction is None


def test_with_a_fraction_own_validation_images_join_the_others():
    d = divide(parts(train=20, val=20, test=4), 0.25, None, 0)
    assert (len(d.train), len(d.val), len(d.test)) == (30, 10, 4)
    assert origins(d.train) == {0, 1}
    assert (origins(d.test), d.val_fraction) == ({2}, 0.25)
    assert not set(d.train.numbers) & set(d.val.numbers)


def test_with_a_fraction_of_0_all_images_train():
    d = divide(parts(train=20, val=20, test=4), 0.0, None, 0)
    assert (len(d.train), d.val, origins(d.test)) == (40, None, {2})
    assert d.val_fraction == 0.0


def test_without_test_images_the_validation_images_are_reported_and_never_chosen_by():
    for fraction, held in ((None, 2), (0.5, 10), (0.0, 0)):
        d = divide(parts(train=20, val=6), fraction, None, 0)
        assert (origins(d.test), len(d.test)) == ({1}, 6)
        assert len(d.train) == 20 - held
        assert (d.val is None) if not held else (origins(d.val) == {0} and len(d.val) == held)
        assert d.val_fraction == (0.1 if fraction is None else fraction)


def test_what_is_not_divided_is_divided_three_ways():
    d = divide(parts(all=100), None, None, 0)
    assert (len(d.train), len(d.val), len(d.test)) == (72, 8, 20)
    assert (d.val_fraction, d.test_fraction) == (0.1, 0.2)
    for split in (d.train, d.val, d.test):
        assert split.labels.bincount().tolist() == [len(split) // 2] * 2
    assert len({*d.train.numbers, *d.val.numbers, *d.test.numbers}) == 100
    assert divide(parts(all=100), None, None, 0).test.numbers == d.test.numbers
    assert divide(parts(all=100), None, None, 1).test.numbers != d.test.numbers


@pytest.mark.parametrize(
    ("splits", "val", "test", "answer"),
    [
        ({"all": 2}, None, 0.1, "not one image to test on, as no class has two"),
        (
            {"train": 4, "test": 4},
            None,
            0.1,
            "data.test_fraction is for data sets without test images",
        ),
        (
            {"train": 2, "test": 4},
            0.1,
            None,
            "data.val_fraction is 0.1, and no class has two images",
        ),
        ({"train": 4, "test": 0}, None, None, "not one image to test on"),
        ({"train": 0, "test": 4}, None, None, "not one image to train on"),
    ],
)
def test_divisions_without_images_are_refused(splits, val, test, answer):
    with pytest.raises(InputError, match=answer):
        divide(parts(**splits), val, test, 0)


# ImageNet


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """Four classes stand for the thousand; val is flat, with the listing beside ILSVRC/."""
    monkeypatch.setitem(DATASETS, "imagenet", DATASETS["imagenet"]._replace(num_classes=4))
    base = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    kinds = [f"n0{i}" for i in range(4)]
    write_classes(base / "train", dict.fromkeys(kinds, 2))
    write_classes(base / "test", {"": 3})
    (base / "val").mkdir()
    rows = ["ImageId,PredictionString"]
    for i, kind in enumerate(["n02", "n00", "n02", "n03"]):
        (base / "val" / f"ILSVRC2012_val_{i:08d}.JPEG").write_bytes(encoded(picture(i)))
        rows.append(f"ILSVRC2012_val_{i:08d},{kind} 1 2 30 40 {kind} 5 6 7 8 ")
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(rows) + "\n")
    words = ["n00 tench, Tinca tinca", "n01 crane", "n02 crane", "n03 toilet tissue", "n99 other"]
    (tmp_path / "LOC_synset_mapping.txt").write_text("\n".join(words) + "\n")
    return tmp_path


@pytest.mark.parametrize("inside", ["", "ILSVRC", "ILSVRC/Data/CLS-LOC"])
def test_imagenet_as_it_is_published(imagenet, inside):
    found = open_dataset("imagenet", imagenet / inside)
    assert counts(imagenet / inside, "imagenet") == {"train": [2] * 4, "val": [1, 0, 2, 1]}
    assert found.classes == ("tench, Tinca tinca", "crane (n01)", "crane (n02)", "toilet tissue")


def test_the_flat_validation_images_of_imagenet_have_the_labels_of_the_listing(imagenet):
    val = open_dataset("imagenet", imagenet).splits["val"]
    found = {val.name(i)[-8:-5]: int(val.labels[i]) for i in range(4)}
    assert found == {"000": 2, "001": 0, "002": 2, "003": 3}
    assert val.read(0) == (imagenet / "ILSVRC/Data/CLS-LOC" / val.name(0)).read_bytes()


@pytest.mark.parametrize("name", ["LOC_val_solution.csv", "LOC_synset_mapping.txt"])
def test_a_listing_that_is_no_text_is_named(imagenet, name):
    (imagenet / name).write_bytes(b"n01 caf\xe9\n")
    assert f"{name} is damaged or no text" in refusal("imagenet", imagenet)


def test_imagenet_with_its_validation_images_in_folders(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "imagenet", DATASETS["imagenet"]._replace(num_classes=2))
    write_classes(tmp_path / "train", {"n00": 2, "n01": 2})
    write_classes(tmp_path / "val", {"n00": 1, "n01": 3})
    assert counts(tmp_path, "imagenet") == {"train": [2, 2], "val": [1, 3]}
    assert open_dataset("imagenet", tmp_path).classes == ("n00", "n01")


def test_a_part_of_imagenet_is_told_from_the_whole(tmp_path):
    write_classes(tmp_path / "train", {"n00": 1, "n01": 1})
    write_classes(tmp_path / "val", {"n00": 1})
    message = refusal("imagenet", tmp_path)
    assert "has 2 class folders, but imagenet has 1000" in message
    assert "--data folder" in message


def test_an_imagenet_that_is_not_complete_is_refused(imagenet):
    listing = imagenet / "LOC_val_solution.csv"
    text = listing.read_text()
    listing.write_text(text.replace("00000003,", "00000009,"))
    assert "has no class for" in refusal("imagenet", imagenet)
    listing.write_text(text.replace("n03 ", "n77 "))
    assert "has the class 'n77', which is not in train/" in refusal("imagenet", imagenet)
    listing.write_text("a,b\n1,2\n")
    assert "needs the columns ImageId and PredictionString" in refusal("imagenet", imagenet)
    listing.unlink()
    assert "put LOC_val_solution.csv into" in refusal("imagenet", imagenet)
    assert "has no folder train/" in refusal(
        "imagenet", imagenet / "ILSVRC" / "Data" / "CLS-LOC" / "val"
    )


# Those that are held in memory


@pytest.fixture
def tiny_imagenet(tmp_path, monkeypatch):
    monkeypatch.setitem(
        DATASETS, "tiny_imagenet", DATASETS["tiny_imagenet"]._replace(num_classes=2)
    )
    base = tmp_path / "tiny-imagenet-200"
    size = {"width": 64, "height": 64}
    for kind in ("n01", "n00"):
        write_classes(base / "train" / kind, {"images": 3}, seed=int(kind[1:]) * 10, **size)
        (base / "train" / kind / f"{kind}_boxes.txt").write_text("0 1 2 3\n")
    write_classes(base / "test", {"images": 2}, **size)
    write_classes(base / "val", {"images": 3}, seed=50, **size)
    lines = "000.jpg\tn01\t0\t0\t9\t9\n001.jpg\tn00\t0\t0\t9\t9\n002.jpg\tn01\t0\t0\t9\t9\n"
    (base / "val" / "val_annotations.txt").write_text(lines)
    (base / "words.txt").write_text("n00\tgoldfish, Carassius auratus\nn01\ttailed frog\n")
    return tmp_path


@pytest.mark.parametrize("inside", ["", "tiny-imagenet-200"])
def test_the_validation_images_of_tiny_imagenet_are_the_test_split(tiny_imagenet, inside):
    data = load_dataset("tiny_imagenet", tiny_imagenet / inside)
    assert data.classes == ("goldfish, Carassius auratus", "tailed frog")
    assert data.train.images.shape == (6, 64, 64, 3)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.labels.tolist() == [0, 1, 1]
    assert data.val is None
    file = tiny_imagenet / "tiny-imagenet-200" / "val" / "images" / "001.jpg"
    expected = torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8)
    assert torch.equal(data.test.images[0].flatten(), expected)


def test_tiny_imagenet_may_have_its_validation_images_in_folders(tiny_imagenet):
    val = tiny_imagenet / "tiny-imagenet-200" / "val"
    for name, kind in (("000", "n01"), ("001", "n00"), ("002", "n01")):
        (val / kind / "images").mkdir(parents=True, exist_ok=True)
        (val / "images" / f"{name}.jpg").rename(val / kind / "images" / f"{name}.jpg")
    (val / "images").rmdir()
    (val / "val_annotations.txt").unlink()
    assert load_dataset("tiny_imagenet", tiny_imagenet).test.labels.tolist() == [0, 1, 1]


@pytest.fixture
def cinic10(tmp_path):
    for split, count in (("train", 3), ("valid", 2), ("test", 1)):
        kinds = {f"kind{i}": count for i in range(10)}
        seed = {"train": 0, "valid": 100, "test": 200}[split]
        write_classes(tmp_path / split, kinds, seed, width=32, height=32)
    return tmp_path


def test_cinic10_has_validation_images_of_its_own(cinic10):
    data = load_dataset("cinic10", cinic10)
    assert [len(s) for s in (data.train, data.val, data.test)] == [30, 20, 10]
    assert data.train.images.shape == (30, 32, 32, 3)
    assert len(data.classes) == 10


def test_what_was_decoded_is_kept_with_its_validation_images(cinic10, monkeypatch):
    first = load_dataset("cinic10", cinic10)

    def nothing(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr("codistill.data.by_name.decode_images", nothing)
    again = load_dataset("cinic10", cinic10)
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.val.images, first.val.images)
    assert len({first.fingerprint, load_dataset_without_val(first)}) == 2


def load_dataset_without_val(dataset):
    from codistill.data.readers.cache import fingerprint

    return fingerprint(dataset.train, dataset.test)


def test_an_image_of_another_size_is_named(cinic10):
    file = cinic10 / "test" / "kind3" / "000.jpg"
    file.write_bytes(encoded(picture(0, 33, 32)))
    with pytest.raises(InputError, match=f"{file} is 33 x 32 pixels: cinic10 has 32 x 32"):
        load_dataset("cinic10", cinic10)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("cinic10", "cinic10 is not downloaded"),
        ("tiny_imagenet", "tiny_imagenet is not downloaded"),
    ],
)
def test_what_has_no_published_checksum_is_not_downloaded(name, answer):
    with pytest.raises(InputError, match=answer):
        load_dataset(name)


def test_an_archive_of_cinic10_is_to_be_extracted(tmp_path):
    (tmp_path / "CINIC-10.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match="extract the archive"):
        load_dataset("cinic10", tmp_path / "CINIC-10.tar.gz")


@pytest.mark.parametrize("name", ["tiny_imagenet", "cinic10", "imagenet"])
def test_every_listed_image_can_be_read(name, request):
    for split in open_dataset(name, request.getfixturevalue(name)).splits.values():
        assert all(split.read(i) for i in range(len(split)))
        assert all(not Path(split.name(i)).is_absolute() for i in range(len(split)))


def test_images_beside_a_train_folder_that_is_divided_are_refused(tmp_path):
    write_classes(tmp_path, {"car": 2, "bus": 1})
    write_classes(tmp_path / "train", {"steam": 2, "electric": 1})
    with pytest.raises(InputError, match=r"images in bus/, car/ beside train/"):
        open_dataset("folder", tmp_path)


def test_what_is_left_out_is_told(tmp_path):
    write_classes(tmp_path / "train", {"cat": 2, "dog": 1})
    write_classes(tmp_path / "test", {"cat": 1, "dog": 1})
    write_classes(tmp_path, {"extra": 3})
    for loose in ("a.jpg", "train/b.png", ".hidden.jpg"):
        (tmp_path / loose).write_bytes(encoded(picture(1)))
    notes = open_dataset("folder", tmp_path).notes
    assert "images that lie in no class folder, and are not used: 2" in notes
    assert "folders beside those of the splits, which are not used: extra/ (3 images)" in notes


def test_names_that_differ_in_their_writing_only_are_told(tmp_path):
    write_classes(tmp_path, {"caf\u00e9": 1, "cafe\u0301": 1, "Dog": 1, "dog": 1})
    notes = " ".join(open_dataset("folder", tmp_path).notes)
    assert "classes of nearly the same name: 'cafe\u0301', 'caf\u00e9'" in notes
    assert "classes of nearly the same name: 'Dog', 'dog'" in notes


def test_a_link_to_the_root_is_no_class(tmp_path):
    write_classes(tmp_path, {"cat": 2, "dog": 1})
    (tmp_path / "self").symlink_to(tmp_path)
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    found = open_dataset("folder", tmp_path)
    assert found.classes == ("cat", "dog")
    assert counts(tmp_path) == {"all": [2, 1]}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_image(tmp_path):
    write_classes(tmp_path, {"cat": 2, "dog": 1})
    os.mkfifo(tmp_path / "dog" / "pipe.jpg")
    assert counts(tmp_path) == {"all": [2, 1]}
