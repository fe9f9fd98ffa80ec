"""Data as people have them: what is taken for splits, classes and labels, or asked about."""

import csv
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_fakes import hub, refusal
from photo_fakes import encoded, picture, write_classes
from PIL import Image

from codistill import load_data
from codistill.command.main import main
from codistill.data import open_dataset
from codistill.data.check import check_dataset

FILES = [f"{i:03d}.jpg" for i in range(12)]
PNG = [encoded(picture(i), "PNG") for i in range(12)]


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def found(dataset):
    """Split -> number of images of each class, by the classes' names."""
    return {
        split: {
            name: count
            for name, count in zip(
                dataset.classes,
                part.labels.bincount(minlength=len(dataset.classes)).tolist(),
                strict=True,
            )
            if count
        }
        for split, part in dataset.splits.items()
    }


def layout(root, **folders):
    """Folders "a/b" with so many images each, written with __ for /."""
    for seed, (folder, count) in enumerate(folders.items()):
        path = root / folder.replace("__", "/")
        write_classes(path.parent, {path.name: count}, seed=100 * seed, width=8, height=8)
    return root


# Folders of splits


@pytest.mark.parametrize(
    ("train", "test", "split"),
    [
        ("training_set", "test_set", "test"),
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
        ("train_images", "val_images", "val"),
        ("TRAIN", "Test", "test"),
        ("train", "dev", "val"),
        ("train", "eval", "val"),
        ("Training", "Validation", "val"),
        ("train2017", "val2017", "val"),
        ("TrainSet", "TestSet", "test"),
        ("segTrain", "segVal", "val"),
        ("trainset", "testset", "test"),
        ("train-data", "valid-data", "val"),
        ("train/images", "test/images", "test"),
        ("archive/photos/train", "archive/photos/test", "test"),
    ],
)
def test_folders_whose_names_say_a_split_are_splits(root, train, test, split):
    layout(root, **{f"{train}/cat": 3, f"{train}/dog": 2, f"{test}/cat": 1, f"{test}/dog": 1})
    dataset = open_dataset("folder", root)
    assert found(dataset) == {"train": {"cat": 3, "dog": 2}, split: {"cat": 1, "dog": 1}}
    assert dataset.notes == ()
    assert dataset.taken() == [
        f"images: train 5 from {train}/, {split} 2 from {test}/",
        "2 classes from the names of the folders: 'cat', 'dog'",
    ]


@pytest.mark.parametrize("above", ["photos", "archive/photos", "train", "train/train"])
def test_folders_around_the_classes_are_passed(root, above):
    layout(root, **{f"{above}/cat": 3, f"{above}/dog": 2})
    (root / "__MACOSX").mkdir()
    dataset = open_dataset("folder", root)
    assert found(dataset) == {"all": {"cat": 3, "dog": 2}}
    assert dataset.splits["all"].name(0) == f"{above}/cat/000.jpg"


@pytest.mark.parametrize(
    ("one", "other"), [("images", "masks"), ("art", "photo"), ("first", "second")]
)
def test_two_folders_with_the_same_folders_inside_are_asked_about(root, one, other):
    layout(root, **{f"{d}/{k}": 2 for d in (one, other) for k in ("cat", "dog")})
    message = refusal("folder", root)
    assert f"{one}/, {other}/ with the same folders inside, cat/ and dog/" in message
    assert f"--data.splits train={one},test={other}" in message
    assert "--data.splits none" in message
    assert found(open_dataset("folder", root, splits="none")) == {"all": {one: 4, other: 4}}
    divided = open_dataset("folder", root, splits=f"train={one},test={other}")
    assert found(divided) == {"train": {"cat": 2, "dog": 2}, "test": {"cat": 2, "dog": 2}}
    alone = open_dataset("folder", root, splits=f"train={one}")
    assert found(alone) == {"all": {"cat": 2, "dog": 2}}
    assert alone.notes == (
        f"folders beside those of the splits, which are not used: {other}/ (4 images)",
    )


def test_names_in_advice_are_as_a_shell_takes_them(root):
    layout(root, **{f"{d}/{k}": 2 for d in ("my, photos", "b") for k in ("cat", "dog")})
    assert "such as --data.splits 'train=b,test=my, photos'" in refusal("folder", root)
    divided = open_dataset("folder", root, splits="train=b,test=my, photos")
    assert found(divided) == {"train": {"cat": 2, "dog": 2}, "test": {"cat": 2, "dog": 2}}
    parquet(root, [640, 480] * 6, column="the width")
    assert "give --data.label_column 'the width'" in refusal("parquet", root)


def test_names_of_classes_are_in_quotes_wherever_they_are_told(root, capsys):
    odd = "cat\x1b[31m "
    layout(
        root, **{f"train/{odd}": 1, "train/a  b": 60, "train/c": 4, f"test/{odd}": 1, "val/c": 1}
    )
    notes = load_data("folder", root, workers=0).notes
    shown = "'cat\\x1b[31m '"
    assert f"fewer than 5 images to train on have the class 'c', {shown}" in notes
    assert f"no image of val has the class 'a  b', {shown}" in notes
    (root / "train" / "c" / "0.jpg").write_bytes((root / "test" / odd / "000.jpg").read_bytes())
    assert main(["data", "check", str(root), "--data.workers", "0"]) == 1
    text = capsys.readouterr().out
    assert f"\n{shown} " in text
    assert "\n'a  b' " in text
    assert f"000.jpg ({shown})" in " ".join(text.split())


def test_splits_inside_classes_are_asked_about(root):
    layout(root, **{f"{k}/{s}": 2 for k in ("cat", "dog") for s in ("train", "test")})
    message = refusal("folder", root)
    assert "has test/ and train/ inside each of cat/, dog/: put the splits outside" in message
    assert found(open_dataset("folder", root, splits="none")) == {"all": {"cat": 4, "dog": 4}}


def test_one_inner_name_of_all_classes_is_no_split(root):
    layout(root, cat__images=2, dog__images=3)
    assert found(open_dataset("folder", root)) == {"all": {"cat": 2, "dog": 3}}


@pytest.mark.parametrize(
    "kinds", [("bullet_train", "car"), ("test_tube", "flask"), ("train", "car")]
)
def test_classes_may_have_the_word_of_a_split_in_their_names(root, kinds):
    layout(root, **dict.fromkeys(kinds, 3))
    assert open_dataset("folder", root).classes == tuple(sorted(kinds))


@pytest.mark.parametrize(
    ("folders", "answer"),
    [
        ({"cat": 2, "dog": 2, "test": 3}, "has images in test/ beside folders that may be classes"),
        (
            {"cat": 2, "dog": 2, "test/cat": 1, "test/dog": 1},
            "has test/ but no train/: put cat/, dog/ into train/ if they are its classes, or give",
        ),
        ({"dev/cat": 2, "dev/dog": 2, "test/cat": 1}, "such as --data.splits train=dev,test=test"),
        ({"train": 3, "test": 3}, "has images in test/ and train/ but no class folders"),
        ({"train_imgs": 3, "test_imgs": 3}, "images in test_imgs/ and train_imgs/ but no class"),
        ({"a/cat": 2, "a/dog": 2, "val/cat": 1}, "--data.splits train=a,val=val"),
        ({"train/cat": 2, "train/dog": 2, "train_b/cat": 1}, "has both train/ and train_b/"),
        ({"train/cat": 2, "train/dog": 2, "test/x": 1}, "test has the classes 'x', and train"),
        ({"Train/a": 2, "Train/b": 2, "test/x": 1}, "that count, as in --data.splits train=Train"),
        (
            {"Train/cat": 2, "Train/dog": 2, "Holdout/cat": 1, "Holdout/dog": 1},
            "what it is, such as --data.splits train=Train,test=Holdout, or --data.splits "
            "train=Train to leave it out",
        ),
        (
            {"animals/cat": 2, "animals/dog": 2, "plants/elm": 2, "plants/oak": 2},
            "animals/cat/ and animals/dog/: give --data.splits none if the outer ones are the "
            "classes ('animals', 'plants'), or move the inner ones up if those are ('cat', 'dog'",
        ),
        (
            {f"{s}/{k}": 1 for s in ("train", "test") for k in ("x/a", "x/b", "y/c", "y/d")},
            "give --data.splits train=train,test=test if the outer ones are the classes ('x', 'y')",
        ),
        ({"train/cat": 2, "train/dog": 2, "test/Cat": 1}, "test has a class 'Cat' and train a"),
        ({"train/cat": 2, "train/dog": 2, "test/cat ": 1, "test/dog": 1}, "has a class 'cat '"),
        ({"train_val/cat": 2, "train_val/dog": 2, "test/cat": 1}, "has test/ but no train/"),
        ({"cat": 5}, "has images of 'cat' only"),
    ],
)
def test_what_can_be_read_in_two_ways_is_asked_about(root, folders, answer):
    assert answer in refusal("folder", layout(root, **folders))


def test_the_outer_of_nested_folders_are_the_classes_if_the_option_says_so(root):
    layout(root, **{"animals/cat": 1, "animals/dog": 2, "plants/elm": 3, "plants/oak": 4})
    dataset = open_dataset("folder", root, splits="none")
    assert found(dataset) == {"all": {"animals": 3, "plants": 7}}


def test_one_folder_in_each_class_is_no_group_of_classes(root):
    layout(root, cat__first=2, dog__second=3)
    assert found(open_dataset("folder", root)) == {"all": {"cat": 2, "dog": 3}}


def test_a_part_of_a_class_beside_its_images_is_no_class(root):
    layout(root, cat=1, cat__old=2, cat__new=1, dog__a=1, dog__b=2)
    assert found(open_dataset("folder", root)) == {"all": {"cat": 4, "dog": 3}}


def test_images_of_a_split_without_class_folders_are_counted(root, capsys):
    layout(root, train__cat=5, train__dog=5, val__cat=2, val__dog=2, test=4)
    note = "test/ has 4 images but no class folders, so they have no labels and are not used"
    dataset = open_dataset("folder", root)
    assert dataset.notes == (note,)
    assert found(dataset) == {"train": {"cat": 5, "dog": 5}, "val": {"cat": 2, "dog": 2}}
    assert main(["data", "check", str(root), "--data.workers", "0"]) == 0
    text = capsys.readouterr().out
    assert note in " ".join(text.split())
    assert "images: train 10 from train/, val 4 from val/" in text


@pytest.mark.parametrize("test", ["test", "test/test", "test_images"])
def test_without_labels_a_split_is_left_out_and_train_divided(root, test):
    layout(root, **{"train/cat": 5, "train/dog": 5, test: 4})
    dataset = open_dataset("folder", root)
    assert found(dataset) == {"all": {"cat": 5, "dog": 5}}
    assert "has 4 images but no class folders" in dataset.notes[0]


def test_folders_beside_the_splits_are_named_with_their_number(root):
    layout(root, train__cat=2, train__dog=2, extra__cat=3)
    assert open_dataset("folder", root).notes == (
        "folders beside those of the splits, which are not used: extra/ (3 images)",
    )


def test_an_empty_split_is_as_if_it_were_not_there(root):
    layout(root, train__cat=2, train__dog=2)
    (root / "test").mkdir()
    dataset = open_dataset("folder", root)
    assert list(dataset.splits) == ["all"]
    assert dataset.notes == ("test/ has no images, and is not used",)


@pytest.mark.parametrize(
    ("splits", "answer"),
    [
        ("train=a,test=trian", "names 'trian', which"),
        ("train=a,tset=b", "give names such as train=a,val=b,test=c, or none"),
        ("test=a", "it has to name train=... too"),
        ("train=a,test=a", "it names 'a' twice"),
        ("train=empty", "names 'empty', and"),
    ],
)
def test_names_of_splits_that_cannot_be_are_refused(root, splits, answer):
    layout(root, a__cat=1, a__dog=1, b__cat=1, empty=0)
    assert answer in refusal("folder", root, splits=splits)


def test_nothing_that_a_system_makes_is_an_image(root):
    layout(root, cat=2, dog=2)
    for inside in ("cat/__MACOSX/x.jpg", "dog/@eaDir/x.jpg/T.jpg", "cat/._000.jpg", ".git/a/x.jpg"):
        (root / inside).parent.mkdir(parents=True, exist_ok=True)
        (root / inside).write_bytes(PNG[0])
    assert found(open_dataset("folder", root)) == {"all": {"cat": 2, "dog": 2}}


def test_files_beside_class_folders_are_counted(root):
    layout(root, train__cat=2, train__dog=2)
    for file in ("photos.zip", "README", "train/labels.json", "train/x.txt", "Thumbs.db", ".x"):
        (root / file).write_bytes(b"")
    assert open_dataset("folder", root).notes == (
        "files without the suffix of an image, which are not used: 1 without a suffix, "
        "1 .zip, 1 .json, 1 .txt",
    )


def test_tables_inside_the_folders_of_splits_are_named_and_read(root):
    layout(root, train=3, test=2)
    table(
        root / "train",
        [["file_name", "label"], *zip(FILES[:3], "aba", strict=True)],
        "metadata.csv",
        images=False,
    )
    table(
        root / "test",
        [["file_name", "label"], *zip(FILES[:2], "ab", strict=True)],
        "metadata.csv",
        images=False,
    )
    advice = f"test/metadata.csv is read by --data csv --data.root {root}"
    assert refusal("folder", root).endswith(advice)
    dataset = open_dataset("csv", root)
    assert found(dataset) == {"train": {"a": 2, "b": 1}, "test": {"a": 1, "b": 1}}
    assert dataset.splits["test"].name(0) == "test/000.jpg"
    assert "train 3 from train/metadata.csv" in dataset.taken()[0]
    assert dataset.notes == ()


def test_a_loop_of_links_ends(root):
    (root / "a").mkdir()
    (root / "a" / "b").symlink_to(root)
    assert "no images in class folders" in refusal("folder", root)


@pytest.mark.parametrize("suffix", [".pgm", ".jfif", ".avif", ".PNM", ".jpe"])
def test_suffixes_of_the_formats_that_are_read(root, suffix):
    kind = {".pgm": "PPM", ".PNM": "PPM", ".avif": "AVIF"}.get(suffix, "JPEG")
    for name in ("cat", "dog"):
        (root / name).mkdir()
        image = picture(1).convert("L") if suffix == ".pgm" else picture(1)
        (root / name / f"0{suffix}").write_bytes(encoded(image, kind))
    dataset = open_dataset("folder", root)
    assert found(dataset) == {"all": {"cat": 1, "dog": 1}}
    assert all(image.size == (40, 30) for image in check_dataset(dataset, 0).images)


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (["cat/0.heic", "cat/1.heic", "dog/0.heic"], "it has 3 .heic, which are not read: convert"),
        (["cat/0", "dog/0"], "it has 2 without a suffix, which are not read"),
        (["cat/0.heic"], "it has 1 .heic, which is not read: convert or rename it"),
        (["data/0.jpg", "labels.json"], "labels in a .json file are not read: write a table of"),
        (["photos.zip"], "; unpack photos.zip first"),
        (["labels.csv", "images/0.jpg"], "labels.csv is read by --data csv --data.root"),
        (["train.parquet"], "train.parquet is read by --data parquet --data.root"),
        (["train.csv", "train/1.jpg", "test/2.jpg"], "train.csv is read by --data csv"),
    ],
)
def test_what_is_no_folder_of_classes_is_answered_with_what_it_is(root, names, answer):
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    assert answer in refusal("folder", root)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("a.zip", "is a file; unpack a.zip first"), ("a.csv", "a.csv is read by --data csv")],
)
def test_a_file_in_place_of_a_folder_is_answered_with_what_it_is(root, name, answer):
    (root / name).write_bytes(b"")
    assert answer in refusal("folder", root / name)


# Labels in tables


def parquet(root, labels, column="label", **more):
    columns = {"image": [PNG[i % 12] for i in range(len(labels))], column: labels, **more}
    pq.write_table(pa.table(columns), root / "train.parquet")
    return root


WORDS = ["cat", "dog"] * 6


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pa.array(WORDS, pa.large_string()), ("cat", "dog")),
        (pa.array(WORDS, pa.string_view()), ("cat", "dog")),
        (pa.array(WORDS).dictionary_encode(), ("cat", "dog")),
        (pa.array([b"cat", b"dog"] * 6), ("cat", "dog")),
        (pa.array([False, True] * 6), ("False", "True")),
        (pa.array([0.0, 1.0] * 6), ("0", "1")),
        (pa.array([0, 1] * 6, pa.uint8()), ("0", "1")),
        (pa.array([0, 1] * 6, pa.int8()), ("0", "1")),
        (pa.array([3, 4846] * 6), ("3", "4846")),
        (pa.array([2019, 2020] * 6), ("2019", "2020")),
        (pa.array([-1, 1] * 6), ("-1", "1")),
        (pa.array([10, 9, 2] * 4), ("2", "9", "10")),
        (pa.array(["10", "9", "2"] * 4), ("2", "9", "10")),
    ],
)
def test_a_column_of_any_type_of_labels_is_read(root, labels, classes):
    dataset = open_dataset("parquet", parquet(root, labels))
    assert dataset.classes == classes
    texts = ["cat" if v == b"cat" else "dog" if v == b"dog" else v for v in labels.to_pylist()]
    names = [dataset.classes[i] for i in dataset.splits["all"].labels]
    assert [str(int(t)) if isinstance(t, float) else str(t) for t in texts] == names
    assert dataset.taken()[1].startswith(f"{len(classes)} classes from the column 'label': ")


def test_gaps_between_labels_are_told(root):
    (note,) = open_dataset("parquet", parquet(root, [3, 4846] * 6)).notes
    assert note == (
        "the labels do not count from 0 without a gap, but go from 3 to 4846: the 2 that occur are "
        "the classes"
    )
    assert open_dataset("parquet", parquet(root, [1, 2] * 6)).notes == ()


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_rows_without_a_label_are_left_out_and_counted(root, nothing):
    labels = pa.array([0.0, 1.0, nothing, 1.0] * 3, from_pandas=False)
    dataset = open_dataset("parquet", parquet(root, labels))
    assert found(dataset) == {"all": {"0": 3, "1": 6}}
    assert dataset.notes == ("rows without a label, which are not used: 3",)
    split = dataset.splits["all"]
    assert split.read(2) == PNG[3]
    assert split.name(2) == "train.parquet, row 3"


def test_a_test_table_without_labels_is_left_out(root):
    parquet(root, WORDS)
    columns = {"image": PNG[:2], "label": pa.array([None, None], pa.string())}
    pq.write_table(pa.table(columns), root / "test.parquet")
    dataset = open_dataset("parquet", root)
    assert list(dataset.splits) == ["all"]
    assert dataset.notes == ("rows of test without a label, which are not used: 2",)


@pytest.mark.parametrize(
    ("labels", "answer"),
    [
        (pa.array([[0], [1]] * 6), "the column 'label' holds list<item: int64>: labels are whole"),
        (pa.array([0.5, 1.0] * 6), "row 0: the column 'label' holds 0.5: labels are whole numbers"),
        (pa.array([0, 1, -1] * 4), "row 2: the label is -1, as of 4 images"),
        (pa.array([{"a": 1}] * 12), "holds struct<a: int64>: labels are whole numbers or names"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"label_column": "label"}])
def test_a_column_that_holds_no_labels_is_named_with_what_it_holds(root, labels, answer, options):
    message = refusal("parquet", parquet(root, labels), **options)
    assert answer.replace("item", "element") in message.replace("item", "element")


@pytest.mark.parametrize(
    ("columns", "answer"),
    [
        ({"width": [640, 480] * 6}, "if 'width' is the labels, and no measurement or number of an"),
        ({"image_id": list(range(12))}, "give --data.label_column image_id"),
        ({"name": [f"a{i}" for i in range(12)]}, "the column 'name' has 12 values in 12 rows"),
        ({"width": [1, 2] * 6, "species": WORDS}, "any of 'width', 'species' may be the labels"),
        ({"class": WORDS, "category": [0, 1] * 6}, "any of 'class', 'category' may be the labels"),
    ],
)
def test_a_column_that_may_be_something_else_is_asked_about(root, columns, answer):
    pq.write_table(pa.table({"image": PNG, **columns}), root / "a.parquet")
    message = refusal("parquet", root)
    assert answer in message
    chosen = next(iter(columns))
    assert f"--data.label_column {chosen}" in message
    assert open_dataset("parquet", root, label_column=chosen).classes


def test_the_likely_column_is_taken_and_said(root):
    dataset = open_dataset("parquet", parquet(root, WORDS, column="Label", width=[3] * 12))
    assert dataset.taken() == [
        "images: undivided 12 from train.parquet",
        "2 classes from the column 'Label': 'cat', 'dog'",
    ]


def test_names_that_nearly_agree_are_told_in_tables_too(root):
    labels = ["cat", "cat ", "Cat", "ice cream", "ice_cream", "caf\u00e9", "cafe\u0301", "dog"]
    notes = open_dataset("parquet", parquet(root, labels)).notes
    assert "classes of nearly the same name: 'Cat', 'cat', 'cat '" in notes
    assert "classes of nearly the same name: 'ice cream', 'ice_cream'" in notes
    assert len(notes) == 3


def test_two_columns_of_images_are_asked_about_or_the_likely_one_taken(root):
    pq.write_table(pa.table({"left": PNG, "right": PNG[::-1], "label": WORDS}), root / "a.parquet")
    assert "any of 'left', 'right' may be the images: say which, such as --data.image_column" in (
        refusal("parquet", root)
    )
    dataset = open_dataset("parquet", root, image_column="right")
    assert dataset.splits["all"].read(0) == PNG[-1]
    assert "no column of image bytes called 'rihgt'" in refusal(
        "parquet", root, image_column="rihgt"
    )
    pq.write_table(pa.table({"mask": PNG, "image": PNG[::-1], "label": WORDS}), root / "a.parquet")
    assert open_dataset("parquet", root).splits["all"].read(0) == PNG[-1]


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.binary_view()])
def test_images_of_any_type_of_bytes_are_read(root, kind):
    pq.write_table(pa.table({"image": pa.array(PNG, kind), "label": WORDS}), root / "a.parquet")
    assert open_dataset("parquet", root).splits["all"].read(3) == PNG[3]


def test_brackets_in_the_name_of_a_file_are_no_pattern(root):
    (parquet(root, WORDS) / "train.parquet").rename(root / "cats [2024].parquet")
    assert len(open_dataset("parquet", root / "cats [2024].parquet").splits["all"]) == 12
    (root / "a [1]").mkdir()
    parquet(root / "a [1]", WORDS)
    assert len(open_dataset("parquet", root / "a [1]").splits["all"]) == 12


def test_files_are_given_to_splits_by_the_option(root):
    parquet(root, WORDS).joinpath("train.parquet").rename(root / "part1-0.parquet")
    parquet(root, WORDS[:4]).joinpath("train.parquet").rename(root / "part2-0.parquet")
    parquet(root, WORDS[:2]).joinpath("train.parquet").rename(root / "rest.parquet")
    dataset = open_dataset("parquet", root, splits="train=part1,test=part2")
    assert {split: len(part) for split, part in dataset.splits.items()} == {"train": 12, "test": 4}
    whole = open_dataset("parquet", root, splits="none")
    assert {split: len(part) for split, part in whole.splits.items()} == {"all": 18}
    assert "names 'part3', and no file's path begins so" in (
        refusal("parquet", root, splits="train=part3")
    )


def test_pandas_writes_a_table_that_is_read(root):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"image": PNG, "label": pandas.Categorical(WORDS)})
    frame.to_parquet(root / "train.parquet")
    assert open_dataset("parquet", root).classes == ("cat", "dog")


# Data sets of the library `datasets`


def saved(datasets, root, columns, **features):
    kinds = {"image": datasets.Image(), **{n: datasets.Value(k) for n, k in features.items()}}
    images = [{"bytes": content, "path": None} for content in PNG]
    table = datasets.Dataset.from_dict({"image": images, **columns}, datasets.Features(kinds))
    table.save_to_disk(str(root / "saved"))
    return str(root / "saved")


@hub
@pytest.mark.parametrize(
    ("kind", "labels", "classes"),
    [
        ("int32", [0, 1] * 6, ("0", "1")),
        ("uint8", [0, 1] * 6, ("0", "1")),
        ("large_string", WORDS, ("cat", "dog")),
        ("bool", [False, True] * 6, ("False", "True")),
        ("float32", [0.0, 1.0] * 6, ("0", "1")),
    ],
)
def test_labels_of_any_type_are_read_from_the_library(hub_library, root, kind, labels, classes):
    dataset = open_dataset("hub", saved(hub_library, root, {"label": labels}, label=kind))
    assert dataset.classes == classes
    assert dataset.splits["all"].labels.tolist() == [0, 1] * 6


@hub
def test_a_measurement_is_not_taken_for_the_label(hub_library, root):
    columns = {"width": [640, 480] * 6, "species": WORDS}
    place = saved(hub_library, root, columns, width="int64", species="string")
    assert "any of 'width', 'species' may be the labels" in refusal("hub", place)
    assert open_dataset("hub", place, label_column="species").classes == ("cat", "dog")
    assert "the column 'image' holds" in refusal("hub", place, label_column="image")


@hub
def test_rows_of_the_library_without_a_label_are_left_out(hub_library, root):
    place = saved(hub_library, root, {"label": [0, 1, None] * 4}, label="int64")
    dataset = open_dataset("hub", place)
    assert dataset.notes == ("rows without a label, which are not used: 4",)
    assert dataset.splits["all"].read(2) == PNG[3]
    assert dataset.splits["all"].labels.tolist() == [0, 1] * 4


@hub
def test_an_image_folder_with_a_table_is_read(hub_library, root):
    for i in range(4):
        (root / f"{i}.png").write_bytes(PNG[i])
    rows = [f"{i}.png,{WORDS[i]}" for i in range(4)]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    assert open_dataset("hub", root).classes == ("cat", "dog")
    assert open_dataset("csv", root / "metadata.csv").classes == ("cat", "dog")


# A table of paths and labels


def table(root, rows, name="labels.csv", delimiter=",", encoding="utf-8", images=True):
    """A CSV of the rows, the first of which names columns, and the images of its first column."""
    with open(root / name, "w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    for i, row in enumerate(rows[1:] if images else []):
        path = root / row[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG[i % 12])
    return root / name


SAYS = ["Training", "Training", "PublicTest"]
ROWS = [["path", "label"], ["a/0.png", "cat"], ["a/1.png", "dog"], ["b/2.png", "cat"]]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_of_paths_and_labels_is_read(root, delimiter, encoding):
    dataset = open_dataset("csv", table(root, ROWS, delimiter=delimiter, encoding=encoding))
    assert found(dataset) == {"all": {"cat": 2, "dog": 1}}
    split = dataset.splits["all"]
    assert [split.name(i) for i in range(3)] == ["a/0.png", "a/1.png", "b/2.png"]
    assert split.read(2) == PNG[2]
    assert dataset.taken() == [
        "images: undivided 3 from labels.csv",
        "2 classes from the column 'label': 'cat', 'dog'",
    ]


def test_the_mark_that_an_editor_puts_first_is_no_part_of_a_name(root):
    table(root, ROWS)
    place = root / "reversed.csv"
    rows = "\n".join(f"{label},{path}" for path, label in ROWS)
    place.write_text(rows, encoding="utf-8-sig")
    assert (
        open_dataset("csv", place).taken()[1] == "2 classes from the column 'label': 'cat', 'dog'"
    )


def test_a_column_of_splits_divides_a_table(root):
    rows = [[*row, s] for row, s in zip(ROWS, ["split", "Training", "val", "train"], strict=True)]
    rows += [["c/3.png", "dog", "train"], ["c/4.png", "dog", "test"]]
    dataset = open_dataset("csv", table(root, rows))
    assert found(dataset) == {"train": {"cat": 2, "dog": 1}, "val": {"dog": 1}, "test": {"dog": 1}}
    assert found(open_dataset("csv", root / "labels.csv", splits="none")) == {
        "all": {"cat": 2, "dog": 3}
    }


def test_the_usage_of_a_row_is_its_split(root):
    rows = [[*row, s] for row, s in zip(ROWS, ["Usage", *SAYS], strict=True)]
    dataset = open_dataset("csv", table(root, rows))
    assert found(dataset) == {"train": {"cat": 1, "dog": 1}, "test": {"cat": 1}}


def test_a_column_that_may_say_splits_is_asked_about(root):
    rows = [[f"{i}.png", "cd"[i // 2 % 2], "AB"[i % 2]] for i in range(8)]
    place = table(root, [["path", "label", "split"], *rows])
    said = refusal("csv", place)
    assert "the column 'split' has 'A', 'B': say which are splits" in said
    assert "--data.splits train=A,test=B" in said
    assert set(open_dataset("csv", place, splits="train=A,test=B").splits) == {"train", "test"}
    assert set(open_dataset("csv", place, splits="none").splits) == {"all"}


def test_a_column_of_splits_outside_csv_is_refused_not_passed_over(root):
    import pyarrow as pa
    from pyarrow import parquet

    columns = {
        "image": [{"bytes": PNG[i % 4], "path": None} for i in range(8)],
        "label": ["a", "b"] * 4,
        "split": ["train"] * 6 + ["test"] * 2,
    }
    parquet.write_table(pa.table(columns), root / "data.parquet")
    said = refusal("parquet", root)
    assert "the column 'split' says splits, and only that of a CSV table is read" in said
    assert set(open_dataset("parquet", root, splits="none").splits) == {"all"}
    assert "the column 'split' says splits" in refusal("hub", root)


def test_values_that_say_no_split_are_asked_about(root):
    rows = [[*row, s] for row, s in zip(ROWS, ["set", "train", "a", "train"], strict=True)]
    place = table(root, [*rows, ["c/3.png", "dog", "train"]])
    assert "the column 'set' has 'a' in 1 row, which says no split" in refusal("csv", place)
    dataset = open_dataset("csv", place, splits="train=train")
    assert dataset.notes == ("rows with 'a' in 'set', which are not used: 1",)
    assert found(dataset) == {"all": {"cat": 2, "dog": 1}}


def test_tables_for_each_split_are_read_from_a_folder(root):
    table(root, ROWS, "train.csv")
    table(root, [ROWS[0], ["c/3.png", "dog"]], "test.csv")
    assert found(open_dataset("csv", root)) == {"train": {"cat": 2, "dog": 1}, "test": {"dog": 1}}
    (root / "test.csv").write_text("path\nc/3.png\n")
    dataset = open_dataset("csv", root)
    assert dataset.notes == ("test.csv has no column of labels, and is not used",)
    assert list(dataset.splits) == ["all"]


def test_names_without_folder_or_suffix_are_looked_for(root):
    for i in range(4):
        layout(root, images=1)
        (root / "images" / f"img_{i}.png").write_bytes(PNG[i])
    rows = [["id", "label"], *([f"img_{i}", WORDS[i]] for i in range(4))]
    dataset = open_dataset("csv", table(root, rows, "train.csv", images=False))
    assert dataset.splits["all"].read(3) == PNG[3]
    assert dataset.notes == (
        "files that are not where the table says, found by their names in images/: 4",
    )
    (root / "more").mkdir()
    (root / "more" / "img_2.jpg").write_bytes(PNG[0])
    assert "img_2 may be images/img_2.png, more/img_2.jpg: write the path" in (
        refusal("csv", root / "train.csv")
    )


def test_paths_may_be_absolute_quoted_or_of_windows(root):
    folder = root / "my, photos"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(PNG[i])
    rows = [
        ["file", "class"],
        [str(folder / "0.png"), "cat"],
        ["my, photos/1.png", "dog"],
        ["my, photos\\2.png", "cat"],
    ]
    split = open_dataset("csv", table(root, rows, images=False)).splits["all"]
    assert [split.read(i) for i in range(3)] == PNG[:3]


def test_a_table_without_a_line_of_names_is_read(root):
    place = table(root, [[], *ROWS[1:]])
    dataset = open_dataset("csv", place)
    assert found(dataset) == {"all": {"cat": 2, "dog": 1}}
    assert dataset.taken()[1].startswith("2 classes from the column 'column 2'")


def test_lines_of_json_are_read(root):
    table(root, ROWS)
    lines = [{"file_name": row[0], "label": i % 2} for i, row in enumerate(ROWS[1:])]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert found(open_dataset("csv", root / "metadata.jsonl")) == {"all": {"0": 2, "1": 1}}


@pytest.mark.parametrize(
    ("labels", "classes", "left_out"),
    [
        (["1.0", "2.0", "", "2.0"], ("1", "2"), 1),
        (["1.0", "nan", "2.0", "NaN"], ("1", "2"), 2),
        (["none", "nan", "x", ""], ("nan", "none", "x"), 1),
        (["True", "False", "True", "False"], ("False", "True"), 0),
        (["10", "9", "9", "10"], ("9", "10"), 0),
        (["007", "7", "8", "8"], ("007", "7", "8"), 0),
    ],
)
def test_labels_of_a_table_are_numbers_or_names(root, labels, classes, left_out):
    rows = [["path", "label"], *([f"{i}.png", label] for i, label in enumerate(labels))]
    dataset = open_dataset("csv", table(root, rows))
    assert dataset.classes == classes
    notes = [note for note in dataset.notes if "without a label" in note]
    assert notes == ([f"rows without a label, which are not used: {left_out}"] if left_out else [])


def test_missing_files_are_counted_and_found_by_the_check(root):
    place = table(root, ROWS)
    (root / "a" / "1.png").unlink()
    dataset = open_dataset("csv", place)
    assert dataset.notes == ("files that the table names and that are not there: 1 (a/1.png)",)
    assert check_dataset(dataset, 0).mend == ["broken: a/1.png: No such file or directory"]


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        ([*ROWS, ["a/0.png", "dog"]], "a/0.png has the label 'dog' here and 'cat' in labels.csv"),
        (
            [["path", "width"], *([f"{i}.png", str(i % 2)] for i in range(4))],
            "if 'width' is the lab",
        ),
        ([["path", "label"], ["0.png", "cat"], ["1.png", "cat"]], "all labels are 'cat'"),
        ([["path", "label"], ["0.png", "0.5"], ["1.png", "1.5"]], "the column 'label' holds "),
        ([["x", "y"], ["1", "2"]], "there has to be one of paths of images"),
        ([["path", "label", "label"], ["0.png", "a", "b"]], "two columns 'label'"),
        ([["path", "label"], ["0.png", "a", "b"]], "row 1 has 3 values, and there are 2 columns"),
        ([["path"], ["0.png"], ["1.png"]], "have no row with a path and a label"),
    ],
)
def test_tables_that_can_be_read_in_two_ways_are_asked_about(root, rows, answer):
    assert answer in refusal("csv", table(root, rows))


@pytest.mark.parametrize("yes", ["1", "1.0", "True"])
def test_columns_of_0_and_1_are_classes(root, yes):
    no = {"1": "0", "1.0": "0.0", "True": "False"}[yes]
    rows = [["image", "MEL", "NV", "UNK"], ["0.png", yes, no, no], ["1.png", no, yes, no]]
    rows.append(["2.png", yes, no, no])
    dataset = open_dataset("csv", table(root, rows))
    assert found(dataset) == {"all": {"MEL": 2, "NV": 1}}
    assert dataset.taken()[1] == "2 classes from the columns of 0 and 1: 'MEL', 'NV'"
    several = table(root, [*rows, ["3.png", yes, yes, no]])
    assert "row 4: of 'MEL', 'NV', 'UNK', which have 0 and 1 as columns of classes have, 2 are" in (
        refusal("csv", several)
    )
    assert found(open_dataset("csv", several, label_column="NV"))


def test_one_column_of_0_and_1_is_no_set_of_classes(root):
    rows = [["image", "size", "blurred"], ["0.png", "3", "1"], ["1.png", "4", "1"]]
    assert "any of 'size', 'blurred' may be the labels" in refusal("csv", table(root, rows))


def test_values_of_json_may_be_numbers(root):
    table(root, ROWS)
    lines = [{"path": row[0], "label": i % 2, "split": i // 2} for i, row in enumerate(ROWS[1:])]
    (root / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "such as --data.splits train=0,test=1" in refusal("csv", root / "m.jsonl")
    assert len(open_dataset("csv", root / "m.jsonl", splits="train=0,test=1").splits) == 2


def test_paths_of_another_machine_are_found_by_their_ends(root):
    layout(root, train__cat=2, test__cat=2)
    rows = [
        ["path", "label"],
        ["/kaggle/input/train/cat/000.jpg", "a"],
        ["C:\\x\\test\\cat\\001.jpg", "b"],
    ]
    dataset = open_dataset("csv", table(root, rows, images=False))
    names = [dataset.splits["all"].name(i) for i in range(2)]
    assert names == ["train/cat/000.jpg", "test/cat/001.jpg"]
    assert dataset.notes == (
        "files that are not where the table says, found by their names in train/cat/: 1",
        "files that are not where the table says, found by their names in test/cat/: 1",
    )


def test_an_image_that_is_named_twice_is_used_once(root):
    dataset = open_dataset("csv", table(root, [*ROWS, ROWS[1]]))
    assert len(dataset.splits["all"]) == 3
    assert dataset.notes == ("rows that name an image again, which are not used: 1",)


def test_an_image_in_two_splits_is_refused(root):
    rows = [["path", "label", "split"], ["0.png", "a", "train"], ["1.png", "b", "train"]]
    place = table(root, [*rows, ["0.png", "a", "test"]])
    assert "0.png is for test here and for train in labels.csv, row 1" in refusal("csv", place)


def test_a_table_whose_files_are_elsewhere_is_refused(root):
    place = table(root, ROWS, images=False)
    assert "there is no a/0.png, nor any other file that the table names" in refusal("csv", place)


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b"path,label\n0.png,caf\xe9\n", "is not UTF-8"),
        (b" \n", "is empty"),
        (b"\x1f\x8b\x08", "is compressed: unpack it first"),
        (b'{"labels": {"0": 1}}', "is JSON: write a table with columns such as path,label, or a"),
        (b"0.png 1\n1.png 0\n", "has blanks between paths and labels: put commas or tabs"),
        (b"PK\x03\x04", "is a spreadsheet or an archive: save it as CSV"),
    ],
)
def test_a_file_that_is_no_table_is_named(root, content, answer):
    (root / "a.csv").write_bytes(content)
    assert answer in refusal("csv", root / "a.csv")


# Tars


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def members(suffix, labels, image=".png"):
    return [
        member
        for i, label in enumerate(labels)
        for member in ((f"{i}{image}", PNG[i % 12]), (f"{i}{suffix}", label))
    ]


@pytest.mark.parametrize(
    ("suffix", "labels"),
    [
        (".cls", [b"cat", b"dog"] * 6),
        (".txt", [b"cat\n", b"dog"] * 6),
        (".label", [b"cat", b"dog"] * 6),
        (".json", [b'{"label": "cat", "width": 3}', b'{"label": "dog", "width": 4}'] * 6),
        (".CLS", [b"cat", b"dog"] * 6),
    ],
)
@pytest.mark.parametrize("image", [".png", ".PNG", ".v2.png"])
def test_labels_of_tars_are_read(root, suffix, labels, image):
    tar(root / "a.tar", members(suffix, labels, image))
    dataset = open_dataset("webdataset", root)
    assert found(dataset) == {"all": {"cat": 6, "dog": 6}}
    assert dataset.notes == ()


def test_a_label_whose_name_has_the_same_dots_as_its_image_belongs_to_it(root):
    files = [(f"{i}.v2.png", PNG[i]) for i in range(4)]
    files += [(f"{i}.v2.cls", label) for i, label in enumerate([b"a", b"b"] * 2)]
    tar(root / "a.tar", files)
    assert found(open_dataset("webdataset", root)) == {"all": {"a": 2, "b": 2}}
    tar(root / "a.tar", [("0.v3.cls", b"b"), *files, ("1.cls", b"b")])
    dataset = open_dataset("webdataset", root)
    assert found(dataset) == {"all": {"a": 2, "b": 2}}
    assert dataset.notes == ("files in the tars that are not used: 1 .v3.cls, 1 .v2.cls",)


def test_what_is_passed_over_in_a_tar_is_counted(root):
    one = members(".cls", [b"0", b"1"] * 3)
    tar(root / "a.tar", [*one, ("0.seg.png", PNG[0]), ("1.mp3", b""), ("2.mp3", b"")])
    (note,) = open_dataset("webdataset", root).notes
    assert note == "files in the tars that are not used: 2 .mp3, 1 .seg.png"


def test_labels_of_files_and_in_json_are_told_apart(root):
    tar(root / "a.tar", members(".json", [b'{"label": "cat"}', b'{"label": "dog"}'] * 3))
    assert "classes from 'label' in .json files" in open_dataset("webdataset", root).taken()[1]
    both = members(".json", [b'{"label": "cat"}', b'{"label": "dog"}'] * 3)
    both += members(".label", [b"a", b"b"] * 3)[1::2]
    tar(root / "a.tar", both)
    dataset = open_dataset("webdataset", root)
    assert dataset.taken()[1] == "2 classes from .label files: 'a', 'b'"
    for given, classes in (("label", ("cat", "dog")), (".label", ("a", "b"))):
        assert open_dataset("webdataset", root, label_column=given).classes == classes
    tar(root / "a.tar", both[:-1])
    assert "but no 5.label for its class" in refusal("webdataset", root)


def test_two_images_of_a_key_are_asked_about(root):
    tar(root / "a.tar", [("0.left.png", PNG[0]), ("0.right.png", PNG[1]), ("0.cls", b"1")])
    assert "two images for '0', their name up to the first dot" in refusal("webdataset", root)


def test_captions_are_no_labels(root):
    texts = [f"a photograph of number {i}".encode() for i in range(12)]
    tar(root / "a.tar", members(".txt", texts))
    assert "the column '.txt' has 12 values in 12 rows" in refusal("webdataset", root)


def test_a_key_of_json_is_chosen_by_name(root):
    facts = [b'{"kind": "cat", "width": 3}', b'{"kind": "dog", "width": 4}'] * 6
    tar(root / "a.tar", members(".json", facts))
    assert "any of 'kind', 'width' may be the labels" in refusal("webdataset", root)
    assert open_dataset("webdataset", root, label_column="kind").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        (b"\xef\xbb\xbfcat\ndog\n\n", ("cat", "dog")),
        (b"cat\r\ndog\r\n", ("cat", "dog")),
        (" caf\u00e9 \ndog".encode(), ("caf\u00e9", "dog")),
    ],
)
def test_a_list_of_classes_is_read_as_editors_write_it(root, content, classes):
    tar(root / "a.tar", members(".cls", [b"0", b"1"] * 3))
    (root / "classnames.txt").write_bytes(content)
    assert open_dataset("webdataset", root).classes == classes


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b"cat\n\ndog\n", "classnames.txt, line 2 is empty"),
        (b"caf\xe9\ndog\n", "classnames.txt is not UTF-8"),
        (b"cat\ncat\n", "has the class 'cat' twice"),
        (b"# names\ncat\ndog\n", "line 1 is '# names': every line is a class: take out remarks"),
    ],
)
def test_a_list_of_classes_that_is_none_is_named(root, content, answer):
    tar(root / "a.tar", members(".cls", [b"0", b"1"] * 3))
    (root / "classnames.txt").write_bytes(content)
    assert answer in refusal("webdataset", root)


def test_a_list_of_classes_orders_labels_that_are_names(root):
    tar(root / "a.tar", members(".cls", [b"cat", b"dog"] * 3))
    (root / "classnames.txt").write_text("dog\nox\ncat\n")
    dataset = open_dataset("webdataset", root)
    assert dataset.classes == ("dog", "ox", "cat")
    assert dataset.splits["all"].labels.tolist() == [2, 0] * 3
    (root / "classnames.txt").write_text("dog\nox\n")
    assert "the label is 'cat', which is none of the 2 class names" in refusal("webdataset", root)


# Images


def grey(levels, bits=8):
    values = np.linspace(0, levels, 64).reshape(8, 8).astype("uint16")
    return encoded(Image.fromarray(values), "PNG")


def folder_of(root, contents, suffix=".png"):
    for i, content in enumerate(contents):
        path = root / ("cat", "dog")[i % 2] / f"{i}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return root


def test_16_bit_images_that_come_out_black_are_found(root, capsys):
    folder_of(root, [grey(200 + i) for i in range(12)])
    line = "12 16-bit images with values up to 211 of 65,535 come out nearly black"
    assert main(["data", "check", str(root), "--data.workers", "0"]) == 1
    assert line in " ".join(capsys.readouterr().out.split())
    assert main(["data", "check", str(root), "--data.workers", "0", "--data.bits", "8"]) == 0
    assert "nearly black" not in capsys.readouterr().out
    train = ["train", "--data", "folder", "--data.root", str(root), "--data.workers", "0"]
    assert main([*train, "--network", "resnet8", "--method", "dml"]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert "--data.bits 8" in error


def test_bits_make_all_levels_of_an_image_seen(root):
    folder_of(root, [grey(255)] * 4)

    def levels(**options):
        from codistill.data.batches.photograph import load_whole

        part = open_dataset("folder", root, **options).splits["all"]
        return len(np.unique(load_whole(lambda: part.read(0), part.bits).pixels))

    assert levels() == 1
    assert levels(bits=8) == 64
    assert levels(bits=12) == 16


def test_16_bit_images_of_full_range_are_not_asked_about(root):
    folder_of(root, [grey(30000 + 9000 * i) for i in range(4)])
    assert not check_dataset(open_dataset("folder", root), 0).mend


def test_images_with_more_than_16_bits_are_not_made_white(root):
    values = np.full((4, 4), 1_000_000, np.int32)
    folder_of(root, [encoded(Image.fromarray(values), "TIFF")] * 2, ".tif")
    (line, *_) = check_dataset(open_dataset("folder", root), 0).mend
    assert "its pixels go from 1,000,000 to 1,000,000, and 16 bits have 0 to 65,535" in line


def test_frames_that_are_not_used_are_counted(root):
    file = io.BytesIO()
    frames = [picture(i) for i in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    folder_of(root, [file.getvalue(), encoded(picture(7), "GIF")], ".gif")
    (line,) = check_dataset(open_dataset("folder", root), 0).consider
    assert line == "images of several frames, of which the first is used: 1, such as cat/0.gif"


@pytest.mark.parametrize(
    ("labels", "answer"),
    [
        (["cat", "dog", "cat|dog"], "'cat|dog', and there are the labels 'cat' and 'dog' too"),
        (["cat", "dog", "dog; cat"], "'dog; cat', and there are the labels 'dog' and 'cat' too"),
        (["cat|dog", "dog|bird", "cow|cat"], "'cat|dog', which names several classes"),
        (["['cat']", "['dog']", "['cat']"], "\"['cat']\", a list that was written as text"),
        (['{"name": "cat"}', "dog", "dog"], "a list that was written as text"),
    ],
)
def test_labels_of_several_classes_are_no_classes(root, labels, answer):
    rows = [[f"{i}.png", label] for i, label in enumerate(labels)]
    told = refusal("csv", table(root, [["path", "label"], *rows]))
    assert answer in told
    assert told.endswith("give each image one label")


def test_names_with_commas_and_lines_are_names(root):
    labels = ["Paris, France", "Rome, Italy", "Lyon, France", "tench|fish"]
    rows = [[f"{i}.png", label] for i, label in enumerate(labels)]
    assert len(open_dataset("csv", table(root, [["path", "label"], *rows])).classes) == 4


@pytest.mark.parametrize(
    ("column", "values", "splits"),
    [
        ("is_valid", ["False", "True"], "train=False,val=True"),
        ("is_test", ["0", "1"], "train=0,test=1"),
        ("Is_Train", ["no", "yes"], "train=yes,test=no"),
    ],
)
def test_a_column_of_yes_and_no_that_divides_is_asked_about(root, column, values, splits):
    rows = [[f"{i}.png", "ab"[i % 2], values[i // 2]] for i in range(4)]
    file = table(root, [["path", "label", column], *rows])
    told = refusal("csv", file)
    assert f"such as --data.splits {splits}, or give --data.splits none" in told
    divided = open_dataset("csv", file, splits=splits)
    assert {len(part.labels) for part in divided.splits.values()} == {2}
    assert "all" in open_dataset("csv", file, splits="none").splits


def test_a_number_of_5000_digits_is_a_name(root):
    rows = [[f"{i}.png", label] for i, label in enumerate(["1", "01", "9" * 5000])]
    dataset = open_dataset("csv", table(root, [["path", "label"], *rows]))
    assert len(dataset.classes) == 3
    assert "classes of nearly the same name: '01', '1'" in dataset.notes
