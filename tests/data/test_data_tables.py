"""Images in tables and tars: every one is found again, with its label, in any order."""

import io
import os
import shutil
import sys
import tarfile
import threading

import numpy as np
import pytest
import torch
from data_fakes import hub, refusal, write_shard
from filelock import FileLock
from photo_fakes import encoded, picture, write_classes

from codistill.data import Normalisation, StreamedTrainBatches, open_dataset
from codistill.data.batches.copies import with_copies
from codistill.data.batches.photograph import reencoded
from codistill.data.readers.index import Index, kept_index
from codistill.data.readers.splits import SplitNames, splits_of
from codistill.errors import InputError, MissingExtraError

pytestmark = pytest.mark.usefixtures("cache")


def contents(split):
    return [(split.read(i), int(split.labels[i])) for i in range(len(split))]


IMAGES = [encoded(picture(i), "PNG") for i in range(6)]
NAMES = {"label": {"names": ["cat", "dog", "ox"]}}


def rows(*places, bare=False):
    return [IMAGES[i] if bare else {"bytes": IMAGES[i], "path": f"{i}.png"} for i in places]


# Parquet


def write_tables(root, features=NAMES, **options):
    root.mkdir()
    for name, places, labels in (
        ("train-00000-of-00002", (0, 1), [2, 0]),
        ("train-00001-of-00002", (2, 3), [1, 1]),
        ("validation-00000-of-00001", (4,), [2]),
        ("test-00000-of-00001", (5,), [0]),
    ):
        columns = {"image": rows(*places, **options), "label": labels}
        write_shard(root / f"{name}.parquet", columns, features)
    return root


@pytest.mark.parametrize("bare", [False, True])
def test_a_table_gives_every_image_with_its_label(tmp_path, bare):
    found = open_dataset("parquet", write_tables(tmp_path / "root", bare=bare))
    assert found.classes == ("cat", "dog", "ox")
    expected = {"train": [(0, 2), (1, 0), (2, 1), (3, 1)], "val": [(4, 2)], "test": [(5, 0)]}
    for split, of_split in expected.items():
        assert contents(found.splits[split]) == [(IMAGES[i], label) for i, label in of_split]
    assert found.splits["train"].name(2) == "train-00001-of-00002.parquet, row 0"


@pytest.mark.parametrize("bare", [False, True])
def test_a_pattern_names_the_tables(tmp_path, bare):
    write_tables(tmp_path / "root")
    found = open_dataset("parquet", tmp_path / "root" / "train-*.parquet")
    assert contents(found.splits["all"])[0] == (IMAGES[0], 2)
    assert list(found.splits) == ["all"]


def test_tables_are_copied_once(tmp_path, monkeypatch):
    root = write_tables(tmp_path / "root")
    first = open_dataset("parquet", root)
    monkeypatch.setattr("codistill.data.readers.parquet._read", None)
    again = open_dataset("parquet", root)
    assert first.fingerprint == again.fingerprint
    assert contents(again.splits["train"]) == contents(first.splits["train"])


def test_a_copy_that_is_damaged_is_made_again(tmp_path):
    root = write_tables(tmp_path / "root")
    first = open_dataset("parquet", root)
    expected = contents(first.splits["train"])
    kept = sorted(file for file in (tmp_path / "cache").iterdir() if file.suffix != ".lock")
    assert [file.suffix for file in kept] == [".images", ".npz"]
    for file in kept:
        file.write_bytes(file.read_bytes()[:100])
        again = open_dataset("parquet", root)
        assert contents(again.splits["train"]) == expected
        assert again.fingerprint == first.fingerprint


def test_a_copy_of_one_wrong_bit_is_never_silently_another_image(tmp_path):
    root = write_tables(tmp_path / "root")
    expected = contents(open_dataset("parquet", root).splits["train"])
    (images,) = (tmp_path / "cache").glob("*.images")
    for hidden in (False, True):
        before, content = images.stat(), bytearray(images.read_bytes())
        content[len(content) // 2] ^= 1
        images.write_bytes(content)
        if hidden:  # as by a disk: the time of the file stays
            os.utime(images, ns=(before.st_atime_ns, before.st_mtime_ns))
            splits = open_dataset("parquet", root).splits.values()
            with pytest.raises(InputError, match=r"images, a copy in the cache, is damaged \("):
                [contents(part) for part in splits]
        assert contents(open_dataset("parquet", root).splits["train"]) == expected


@pytest.mark.parametrize("place", range(0, 1000, 9))
def test_an_index_that_is_damaged_is_made_again(tmp_path, place):
    index = Index(*np.arange(12).reshape(4, 3), ["a", "b", "c"], ["all"], [3], ["x"], "column")
    file = tmp_path / "index.npz"
    kept_index(file, lambda: index)
    assert repr(kept_index(file, lambda: 1 / 0)) == repr(index)  # read, not built
    content = bytearray(file.read_bytes())
    content[place * len(content) // 1000] ^= 0xFF
    file.write_bytes(content)
    again = kept_index(file, lambda: index)
    assert repr(again) == repr(index)


def test_labels_may_be_names_and_another_column(tmp_path):
    columns = {"photo": rows(0, 1, 2), "kind": ["ox", "cat", "ox"], "label": [0, 0, 1]}
    write_shard(tmp_path / "a.parquet", columns, None)
    found = open_dataset("parquet", tmp_path, label_column="kind")
    assert found.classes == ("cat", "ox")
    assert found.splits["all"].labels.tolist() == [1, 0, 1]
    assert open_dataset("parquet", tmp_path).splits["all"].labels.tolist() == [0, 0, 1]


def test_numbers_without_names_are_their_own_names(tmp_path):
    write_shard(tmp_path / "a.parquet", {"image": rows(0, 1), "label": [2, 0]}, None)
    found = open_dataset("parquet", tmp_path)
    assert found.classes == ("0", "2")
    assert found.splits["all"].labels.tolist() == [1, 0]
    (note,) = found.notes
    assert "go from 0 to 2: the 2 that occur are the classes" in note


@pytest.mark.parametrize(
    ("columns", "answer"),
    [
        ({"image": ["x", "y"], "label": [0, 1]}, "there has to be one of image bytes"),
        ({"image": rows(0, 1), "a": [0, 1], "b": [0, 1]}, "such as --data.label_column a"),
        ({"image": rows(0, 1), "label": [0, -2]}, "row 1: the label is -2: labels count from 0"),
        ({"image": rows(0, 1), "label": [0, 7]}, "row 1: the label is 7, not 0 to 2"),
        (
            {"image": [{"bytes": IMAGES[0], "path": "a"}, {"bytes": None, "path": "b"}],
             "label": [0, 1]},
            "no image bytes are stored",
        ),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used_are_refused(tmp_path, columns, answer):
    write_shard(tmp_path / "a.parquet", columns, NAMES)
    assert answer in refusal("parquet", tmp_path)


def test_what_is_no_table_is_refused_by_name(tmp_path):
    assert "there is no parquet file" in refusal("parquet", tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    assert "a.parquet is damaged or cut off" in refusal("parquet", tmp_path)


def test_an_unknown_column_is_answered_with_the_nearest(tmp_path):
    root = write_tables(tmp_path / "root")
    assert "did you mean 'label'?" in refusal("parquet", root, label_column="lable")


def test_tables_without_pyarrow_are_answered_with_its_installation(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'codistill\[parquet\]'"):
        open_dataset("parquet", tmp_path)


def test_a_cache_that_cannot_be_written_is_what_is_named(tmp_path, monkeypatch):
    root = write_tables(tmp_path / "root")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CODISTILL_CACHE", str(tmp_path / "file" / "cache"))
    message = refusal("parquet", root)
    assert "cache" in message
    assert "cannot be written (Not a directory)" in message
    assert "CODISTILL_CACHE" in message


def test_what_a_killed_copy_left_is_removed_and_others_wait_for_a_living_one(tmp_path):
    root = write_tables(tmp_path / "root")
    open_dataset("parquet", root)
    images = next((tmp_path / "cache").glob("*.images"))
    left = images.with_name(f".{images.name}.0.tmp")
    left.write_bytes(b"half")
    images.unlink()
    with FileLock(images.with_suffix(".lock")):
        other = threading.Thread(target=open_dataset, args=("parquet", root), daemon=True)
        other.start()
        other.join(0.3)
        assert other.is_alive()
        assert not images.exists()
    other.join(10)
    assert images.exists()
    assert not left.exists()


def test_without_room_for_the_copy_it_is_not_begun(tmp_path, monkeypatch):
    root = write_tables(tmp_path / "root")
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr("codistill.data.readers.parquet.shutil.disk_usage", lambda _: full)
    message = refusal("parquet", root)
    assert "has 10 bytes free, but a copy of the images needs" in message
    assert "CODISTILL_CACHE" in message


# Which split a file is for


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train-0.tar", "val-0.tar", "test-0.tar"], ["train", "val", "test"]),
        (["imagenet_train_01.tar", "imagenet_validation_01.tar"], ["train", "val"]),
        (["train/test_photos/0.tar", "test/0.tar", "train/0.tar"], ["test", "test", "train"]),
        (["0.tar", "1.tar"], ["all", "all"]),
        (["train-0.tar", "train-1.tar"], ["all", "all"]),
        (["trainers/0.tar", "contest/0.tar"], ["all", "all"]),
    ],
)
def test_the_path_of_a_file_says_its_split(files, splits):
    from pathlib import PurePath

    assert splits_of([PurePath(file) for file in files], SplitNames()) == splits


def test_files_that_do_not_say_their_split_beside_others_that_do_are_refused():
    from pathlib import PurePath

    with pytest.raises(InputError, match=r"more\.tar has no train, val or test in its path"):
        splits_of([PurePath("train-0.tar"), PurePath("more.tar")], SplitNames())
    with pytest.raises(InputError, match="for test and val, but none for train"):
        splits_of([PurePath("val-0.tar"), PurePath("test-0.tar")], SplitNames())


# Tars


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def pair(key, i, label):
    return [(f"{key}.png", IMAGES[i]), (f"{key}.cls", str(label).encode())]


def write_tars(root):
    write_tar(root / "train-0.tar", [*pair("a/0", 0, 2), *pair("b/0", 1, 0)])
    second = [("1.cls", b"1\n"), ("1.PNG", IMAGES[2]), ("1.json", b"{}"), ("1.seg.png", b"mask")]
    write_tar(root / "train-1.tar", second)
    write_tar(root / "val-0.tar", pair("5", 5, 1))
    return root


def test_tars_give_every_image_with_its_label(tmp_path):
    root = write_tars(tmp_path / "root")
    found = open_dataset("webdataset", root)
    assert contents(found.splits["train"]) == [(IMAGES[0], 2), (IMAGES[1], 0), (IMAGES[2], 1)]
    assert contents(found.splits["val"]) == [(IMAGES[5], 1)]
    assert found.classes == ("0", "1", "2")
    assert found.splits["train"].name(2) == "train-1.tar/1.PNG"


def test_class_names_lie_beside_the_tars(tmp_path):
    root = write_tars(tmp_path / "root")
    numbers = open_dataset("webdataset", root)
    (root / "classnames.txt").write_text("cat\ndog\nox\nhen\n")
    named = open_dataset("webdataset", root)
    assert named.classes == ("cat", "dog", "ox", "hen")
    assert named.fingerprint == numbers.fingerprint


def test_labels_in_tars_may_be_names(tmp_path):
    write_tar(tmp_path / "a.tar", [*pair("0", 0, "ox"), *pair("1", 1, "cat")])
    found = open_dataset("webdataset", tmp_path)
    assert found.classes == ("cat", "ox")
    assert found.splits["all"].labels.tolist() == [1, 0]


def test_tars_are_indexed_once(tmp_path, monkeypatch):
    root = write_tars(tmp_path / "root")
    first = open_dataset("webdataset", root)
    monkeypatch.setattr("codistill.data.readers.tars._list_tar", None)
    assert open_dataset("webdataset", root).fingerprint == first.fingerprint
    write_tar(root / "train-1.tar", pair("1", 3, 1))
    with pytest.raises(TypeError):  # a tar that has changed is indexed again
        open_dataset("webdataset", root)


@pytest.mark.parametrize(
    ("members", "answer"),
    [
        ([("0.png", IMAGES[0])], "have 0.png but no 0.cls"),
        ([*pair("0", 0, 1), ("0.jpg", IMAGES[1])], "two images for '0'"),
        ([("readme.txt", b"")], "there is no image in its tars"),
    ],
)
def test_tars_that_cannot_be_used_are_refused(tmp_path, members, answer):
    write_tar(tmp_path / "a.tar", members)
    assert answer in refusal("webdataset", tmp_path)


@pytest.mark.parametrize("keep", [700, 100])
def test_a_tar_that_is_cut_off_is_refused_by_name(tmp_path, keep):
    write_tar(tmp_path / "a.tar", [("0.cls", b"1"), ("0.png", b"x" * 5000)])
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: 1024 + keep])
    assert "cut off" in refusal("webdataset", tmp_path)


def test_a_folder_without_tars_is_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"")
    assert "has no *.tar in it: unpack those that are compressed" in refusal("webdataset", tmp_path)


def test_an_epoch_of_tars_goes_on_from_any_step(tmp_path):
    members = [m for i in range(24) for m in pair(str(i), i % 6, i % 3)]
    write_tar(tmp_path / "a.tar", members)
    split = open_dataset("webdataset", tmp_path).splits["all"]
    as_it_is = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    whole, rest = (StreamedTrainBatches(split, 5, as_it_is, workers=w) for w in (0, 2))
    whole.start_at(3)
    rest.start_at(3, 2)
    for a, b in zip(list(whole)[2:], rest, strict=True):
        assert torch.equal(a.views[0], b.views[0])
        assert torch.equal(a.labels, b.labels)


# Copies


def saved_for_the_hub(root, places=range(6)):
    import datasets

    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a"]))
    columns = {"image": rows(*places), "label": [0] * 6}
    datasets.Dataset.from_dict(columns, features).save_to_disk(str(root))
    return root


@pytest.mark.parametrize(
    ("form", "write"),
    [
        ("parquet", write_tables),
        ("webdataset", write_tars),
        ("hub", saved_for_the_hub),
    ],
)
def test_images_of_every_form_have_copies(tmp_path, request, form, write):
    if form == "hub":
        request.getfixturevalue("hub_library")

    def stamps():
        found = [(p, i) for p in opened().splits.values() for i in p.index.tolist()]
        return [part.store.stamp(i) for part, i in found]

    def opened():
        return open_dataset(form, tmp_path / "root")

    write(tmp_path / "root")
    before = stamps()
    assert len(set(before)) == len(before)
    assert stamps() == before
    for split, part in with_copies(opened(), "root", 24).splits.items():
        images = [reencoded(c, 24) for c, _ in contents(opened().splits[split])]
        assert [c for c, _ in contents(part)] == images == [c for c, _ in contents(part)]
    shutil.rmtree(tmp_path / "root")
    write(tmp_path / "root", **({"places": range(5, -1, -1)} if form == "hub" else {}))
    assert not set(stamps()) & set(before)


# The Hugging Face Hub, of which nothing is fetched here: the library reads a folder the same way


@hub
def test_a_data_set_of_the_hub_gives_every_image_with_its_label(tmp_path):
    root = tmp_path / "root"
    for split, kinds in (("train", {"cat": 2, "dog": 1}), ("validation", {"cat": 1, "dog": 1})):
        write_classes(root / split, kinds, seed=len(split))
    found = open_dataset("hub", root)
    assert found.classes == ("cat", "dog")
    assert found.splits["train"].labels.tolist() == [0, 0, 1]
    files = [root / "train" / name for name in ("cat/000.jpg", "cat/001.jpg", "dog/000.jpg")]
    assert [c for c, _ in contents(found.splits["train"])] == [f.read_bytes() for f in files]
    assert found.splits["val"].name(0) == "val, row 0"
    assert found.splits["val"].read(1) == (root / "validation/dog/000.jpg").read_bytes()


@hub
def test_tables_of_the_hub_are_read_in_workers_too(tmp_path, hub_library):
    datasets = hub_library
    features = datasets.Features(
        image=datasets.Image(),
        coarse=datasets.ClassLabel(names=["animal", "thing"]),
        label=datasets.ClassLabel(names=["cat", "dog", "ox"]),
    )
    columns = {"image": rows(*range(6)), "coarse": [0] * 6, "label": [0, 1, 2, 0, 1, 2]}
    (tmp_path / "root").mkdir()
    table = datasets.Dataset.from_dict(columns, features)
    table.to_parquet(str(tmp_path / "root" / "train-00000-of-00001.parquet"))
    found = open_dataset("hub", tmp_path / "root")
    split = found.splits["all"]
    assert contents(split) == [(IMAGES[i], i % 3) for i in range(6)]
    assert open_dataset("hub", tmp_path / "root", label_column="coarse").classes == (
        "animal",
        "thing",
    )
    as_it_is = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    one, other = (list(StreamedTrainBatches(split, 3, as_it_is, workers=w)) for w in (0, 1))
    assert all(torch.equal(a.views[0], b.views[0]) for a, b in zip(one, other, strict=True))
    assert found.fingerprint == open_dataset("hub", tmp_path / "root").fingerprint


@hub
def test_what_the_hub_cannot_give_is_refused_in_one_line(tmp_path):
    assert "the data set 'no/such' cannot be loaded" in refusal("hub", "no/such")


def test_the_hub_without_its_library_is_answered_with_its_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'codistill\[hub\]'"):
        open_dataset("hub", "anything")
