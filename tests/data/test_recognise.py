"""A word of the command line is a folder, a file, a pattern, a name on the Hub or a known name."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photo_fakes import write_classes

from codistill.data.recognise import recognise
from codistill.errors import InputError
from codistill.settings.arguments import parse_config
from codistill.settings.data_word import with_data
from codistill.settings.recipes import read_recipe

CLASSES = {"ant": 2, "bee": 2}


def table(file: Path, columns: tuple[str, ...]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: [0, 1] for column in columns}), file)


def tar(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as out:
        out.addfile(tarfile.TarInfo("1.jpg"), io.BytesIO())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "photos", CLASSES)
    write_classes(tmp_path / "split" / "train", CLASSES)
    write_classes(tmp_path / "split" / "test", CLASSES)
    (tmp_path / "photos" / "notes.txt").write_text("not a table")
    (tmp_path / "labels.csv").write_text("path,label\nphotos/ant/000.jpg,a\nphotos/bee/000.jpg,b\n")
    table(tmp_path / "shards" / "train-0.parquet", ("image", "label"))
    table(tmp_path / "deep" / "data" / "train-0.parquet", ("image", "label"))
    table(tmp_path / "small" / "train-0.parquet", ("img", "fine_label", "coarse_label"))
    tar(tmp_path / "tars" / "train-0.tar")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text("{}")
    for folder in ("archive/cifar-10-batches-py", "tiny/tiny-imagenet-200", "big/ILSVRC"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"")
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("word", "name", "root"),
    [
        ("photos", "folder", "photos"),
        ("photos/", "folder", "photos/"),
        ("split", "folder", "split"),
        ("labels.csv", "csv", "labels.csv"),
        ("shards", "parquet", "shards"),
        ("deep", "parquet", "deep"),
        ("shards/train-0.parquet", "parquet", "shards/train-0.parquet"),
        ("shards/*.parquet", "parquet", "shards/*.parquet"),
        ("small", "cifar100", "small"),
        ("tars", "webdataset", "tars"),
        ("tars/train-0.tar", "webdataset", "tars/train-0.tar"),
        ("tars/*.tar", "webdataset", "tars"),
        ("saved", "hub", "saved"),
        ("archive", "cifar10", "archive"),
        ("cifar-100-python.tar.gz", "cifar100", "cifar-100-python.tar.gz"),
        ("tiny", "tiny_imagenet", "tiny"),
        ("big", "imagenet", "big"),
        ("cifar100", "cifar100", None),
        ("ylecun/mnist", "hub", "ylecun/mnist"),
        ("ylecun/mnist:plain", "hub", "ylecun/mnist:plain"),
    ],
)
def test_a_word_is_what_lies_there(word: str, name: str, root: str | None) -> None:
    assert recognise(word) == (name, root)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("photo", "photo does not exist, and no data set is called so: did you mean 'photos'?"),
        ("cifar1000", "did you mean 'cifar100'?"),
        ("folder", "folder does not exist, and no data set is called so"),
        (
            "/nowhere",
            "/nowhere does not exist, and no data set is called so: give a folder, a file",
        ),
        ("photos/ant/000.jpg", "is one image: give a folder of class folders"),
        ("photos/notes.txt", "is a file of no known form"),
        ("photos/*.jpg", "matches 0 files: give a pattern of Parquet files"),
        ("archive/cifar-10-batches-py", "has no image and no table in it"),
    ],
)
def test_a_word_that_names_no_images_is_answered(word: str, answer: str) -> None:
    with pytest.raises(InputError) as refused:
        recognise(word)
    assert answer in str(refused.value)


def test_what_can_be_read_in_two_ways_is_asked(here: Path) -> None:
    text = (here / "labels.csv").read_text().replace("photos/", "")
    (here / "photos" / "labels.csv").write_text(text)
    with pytest.raises(InputError) as refused:
        recognise("photos")
    assert str(refused.value) == (
        "photos can be read as a folder of class folders (4 images, 2 classes) by --data folder, "
        "or as a table of paths and labels (2 images, 2 classes) by photos/labels.csv in its "
        "place: say which"
    )
    (here / "photos" / "labels.csv").write_text("epoch,loss\n1,2.0\n")
    assert recognise("photos") == ("folder", "photos")  # that table lists no images


def test_a_name_that_is_a_folder_too_is_asked(here: Path) -> None:
    (here / "cifar10").mkdir()
    with pytest.raises(InputError, match=r"give \./cifar10, or --data cifar10"):
        recognise("cifar10")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("photos", "--data folder --data.root photos --config photos"),
        ("--epochs 3 photos", "--epochs 3 --data folder --data.root photos --config photos"),
        ("--epochs=3 photos", "--epochs=3 --data folder --data.root photos --config photos"),
        ("photos --network resnet8", "--network resnet8 --data folder --data.root photos"),
        (
            "photos --network timm/a,resnet8",
            "--network timm/a,resnet8 --data folder --data.root photos",
        ),
        (
            "photos --network timm/a,torchvision/b",
            "--network timm/a,torchvision/b --data folder --data.root photos --config photos "
            "--student null",
        ),
        (
            "photos --student timm/a --network timm/b",
            "--student timm/a --network timm/b --data folder --data.root photos --config photos",
        ),
        (
            "photos --student resnet8 --network timm/b",
            "--student resnet8 --network timm/b --data folder --data.root photos",
        ),
        ("photos --config r.yaml", "--config r.yaml --data folder --data.root photos"),
        ("split --data folder", "--data folder --data.root split --config photos"),
        ("cifar100", "--data cifar100"),
        ("--seed 1", "--seed 1"),
        ("photos --help", "photos --help"),
        (
            "--data.root photos",
            "--data.root photos --data folder --data.root photos --config photos",
        ),
        ("--data cifar100 --data.root small", "--data cifar100 --data.root small"),
    ],
)
def test_a_word_stands_for_its_options(given: str, meant: str) -> None:
    argv, said = with_data(given.split())
    assert argv == meant.split()
    assert bool(said) == ("--config photos" in meant)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("given", ["photos split", "photos --data.root split"])
def test_two_words_are_refused(given: str) -> None:
    with pytest.raises(InputError, match="given twice, by 'photos' and 'split'"):
        with_data(given.split())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("data", "recipe", "kept"),
    [
        ("folder", "ffl_resnet8_cifar100_short", False),
        ("cifar10", "ffl_resnet8_cifar100_short", True),
        ("folder", "dml_resnet18_imagenet", True),
        ("cifar100", "dml_resnet18_imagenet", False),
    ],
)
def test_a_recipe_keeps_its_images_settings_for_images_of_its_kind(
    data: str, recipe: str, kept: bool
) -> None:
    config = parse_config(["--data", data, "--config", recipe], "codistill train")
    assert config.data.name == data
    assert (config.data.pad == 4 or config.data.image_size == 224) == kept


def test_a_folder_of_a_recipe_s_name_hides_no_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_recipe("photos")["student"] == "timm/mobilenetv3_small_100"
