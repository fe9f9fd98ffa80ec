"""`codistill data check`: what is in a folder, what has to be repaired."""

import os
from pathlib import Path

import pytest
from photo_fakes import encoded, picture, write_classes
from PIL import Image

from codistill import load_data
from codistill.command.main import main
from codistill.data.by_name import open_dataset
from codistill.data.check import check_dataset


@pytest.fixture
def good(tmp_path):
    root = tmp_path / "photos"
    write_classes(root / "train", {"cat": 8, "dog": 7}, width=40, height=30)
    write_classes(root / "test", {"cat": 1, "dog": 2}, seed=50, width=20, height=60)
    return root


def check(root, workers=0):
    return check_dataset(open_dataset("folder", root), workers)


def report(capsys, *arguments):
    status = main(["data", "check", *map(str, arguments), "--data.workers", "0"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    return status, text


def test_a_sound_folder_is_described(good, capsys):
    status, text = report(capsys, good)
    assert status == 0
    lines = [line.split() for line in text.splitlines()]
    assert ["class", "train", "test"] in lines
    assert ["'cat'", "8", "1"] in lines
    assert ["'dog'", "7", "2"] in lines
    assert ["2", "classes", "15", "3"] in lines
    assert "width      20 to 40 pixels, median 40" in text
    assert "height     30 to 60 pixels, median 30" in text
    assert "short side 20 to 30 pixels, median 30" in text
    assert "modes      18 RGB" in text
    assert "Nothing has to be repaired." in text


def test_the_imbalance_is_that_of_largest_and_smallest(tmp_path, capsys):
    write_classes(tmp_path, {"cat": 22, "dog": 2})
    _, text = report(capsys, tmp_path)
    assert "imbalance  11.0" in text
    assert "the largest class has 16 times as many images as the smallest" in text


def test_modes_are_counted(tmp_path, capsys):
    write_classes(tmp_path, {"cat": 2, "dog": 2})
    (tmp_path / "cat" / "grey.png").write_bytes(encoded(picture(90).convert("L"), "PNG"))
    _, text = report(capsys, tmp_path)
    assert "modes      4 RGB, 1 L" in text


def test_broken_images_have_to_be_repaired(good, capsys):
    (good / "train" / "cat" / "000.jpg").write_bytes(b"")
    status, text = report(capsys, good)
    assert status == 1
    assert "- broken: train/cat/000.jpg: the file is empty" in text
    assert "Nothing" not in text


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_is_read_once(good, workers):
    seen = []
    found = check_dataset(open_dataset("folder", good), workers, seen.append)
    assert sum(seen) == 18
    assert [image.name for image in found.images][:2] == ["train/cat/000.jpg", "train/cat/001.jpg"]
    assert not found.mend
    assert not found.consider


def test_a_class_without_images_has_to_be_repaired(good):
    (good / "train" / "ox").mkdir()
    write_classes(good / "test", {"hen": 1}, seed=70)
    assert check(good).mend == [
        "no image to train on has the class 'hen'",
    ]
    assert check(good).consider == [
        "no images in the class folder 'train/ox'",
    ]


def copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def test_the_same_file_in_train_and_test_is_a_warning(good, capsys):
    copy(good / "train" / "cat" / "000.jpg", good / "test" / "cat" / "zzz.jpg")
    status, text = report(capsys, good)
    assert status == 0
    text = " ".join(text.split())
    assert "the same file more than once across test and train: 1 too many" in text
    assert "test/cat/zzz.jpg = train/cat/000.jpg" in text


def test_copies_within_a_split_are_counted(good):
    for i in range(3):
        copy(good / "train" / "cat" / "000.jpg", good / "train" / "cat" / f"copy{i}.jpg")
    (line,) = check(good).consider
    assert line.startswith("the same file more than once in train: 3 too many, such as train/cat/")


def test_the_same_pixels_in_another_file_are_found(good):
    file = good / "train" / "cat" / "000.jpg"
    Image.open(file).save(good / "train" / "cat" / "same.png")
    (line,) = check(good).consider
    assert line.startswith("the same pixels more than once in train: 1 too many")


def test_the_same_bytes_of_pixels_in_another_shape_are_another_image(tmp_path):
    write_classes(tmp_path, {"cat": 8, "dog": 8})
    for name, size in (("wide", (8, 4)), ("high", (4, 8))):
        Image.new("RGB", size, (9, 9, 9)).save(tmp_path / "cat" / f"{name}.png")
    assert not check(tmp_path).consider


def test_the_same_image_in_two_classes_has_to_be_repaired(good):
    copy(good / "train" / "cat" / "000.jpg", good / "train" / "dog" / "copy.jpg")
    (line,) = check(good).mend
    assert line == (
        "the same file in two classes: train/cat/000.jpg ('cat'), train/dog/copy.jpg ('dog')"
    )


def test_two_broken_images_are_no_copies(good):
    for i in range(2):
        (good / "train" / "cat" / f"empty{i}.jpg").write_bytes(b"")
    found = check(good)
    assert len(found.mend) == 2
    assert not found.consider


def test_many_classes_and_findings_are_cut_short(tmp_path, capsys):
    write_classes(tmp_path, {f"class_{i:02d}": 1 + i % 2 for i in range(45)})
    for i in range(45):
        (tmp_path / f"class_{i:02d}" / "broken.png").write_bytes(b"")
    status, text = report(capsys, tmp_path)
    assert status == 1
    assert "... and 25 classes between these" in text
    assert "- and 25 more like these" in text
    assert len(text.splitlines()) < 65


def test_long_names_stay_within_the_width(tmp_path, capsys):
    write_classes(tmp_path, {"a" * 150: 1, "b": 1})
    (tmp_path / ("a" * 150) / ("c" * 100 + ".jpg")).write_bytes(b"")
    status, _ = report(capsys, tmp_path)
    assert status == 1


def test_no_name_reaches_the_terminal_as_a_command(tmp_path, capsys):
    for name in ("a\x1b[31m", "b\r\x07"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"none\x1b")
    status, text = report(capsys, tmp_path)
    assert status == 1
    assert "a\\x1b[31m" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_other_data_sets_are_checked_by_name(tmp_path, capsys):
    kinds = {f"kind{i}": 1 for i in range(10)}
    for i, split in enumerate(("train", "valid", "test")):
        write_classes(tmp_path / split, kinds, seed=100 * i, width=32, height=32)
    status, text = report(capsys, tmp_path, "--data", "cinic10")
    assert status == 0
    assert ["10", "classes", "10", "10", "10"] in [line.split() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["chek"], "did you mean 'check'?"),
        (["check"], "the following arguments are required: DATA"),
        (["check", "DIR", "--data", "digits"], "digits is held in memory"),
        (["check", "DIR", "--data", "foldr"], "did you mean 'folder'?"),
        (["check", "/nowhere"], "/nowhere does not exist"),
        (["check", "DIR", "--data.workers", "-1"], "--data.workers: '-1' is not a whole number"),
    ],
)
def test_bad_input_gets_one_line_that_helps(arguments, answer, capsys):
    assert main(["data", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert answer in line


def test_help_comes_without_arguments(capsys):
    assert main(["data"]) == 0
    assert "usage: codistill data [-h] COMMAND" in capsys.readouterr().out


def test_nothing_is_written_into_the_folder(good):
    before = sorted(os.walk(good))
    check(good)
    assert sorted(os.walk(good)) == before


def test_what_training_would_stumble_on_is_found(tmp_path, capsys):
    """Images of which none can be tested on."""
    write_classes(tmp_path, {"cat": 1, "dog": 1})
    status, text = report(capsys, tmp_path)
    assert status == 1
    assert "not one image to test on, as no class has two" in (" ".join(text.split()))


def test_remarks_are_those_of_a_training(tmp_path):
    write_classes(tmp_path, {"cat": 2, "dog": 9})
    found, data = check(tmp_path), load_data("folder", tmp_path, workers=0)
    assert found.consider == list(data.notes)
    assert "fewer than 5 images to train on have the class 'cat'" in data.notes
