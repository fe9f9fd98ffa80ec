"""Every form that a data set comes in gives the same data."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_fakes import (
    encode,
    make_fake,
    python2_pickle,
    rows,
    splits,
    write_archive,
    write_class_folders,
    write_extracted,
    write_parquet,
    write_shard,
)
from PIL import Image

from codistill.data import load_dataset
from codistill.names import DATASETS

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar100"


pytestmark = pytest.mark.usefixtures("cache")


FORMS = {
    "archive": write_archive,
    "folder with archive": lambda root, fake: write_archive(root, fake).parent,
    "extracted": write_extracted,
    "folder with extracted": lambda root, fake: write_extracted(root, fake).parent,
    "class folders": write_class_folders,
    "parquet": write_parquet,
    "parquet in data": lambda root, fake: write_parquet(root / "data", fake).parent,
    "parquet in config": lambda root, fake: write_parquet(root / fake.name, fake).parent,
    "parquet in other": lambda root, fake: write_parquet(root / "plain_text", fake).parent,
    "parquet 'image'": lambda root, fake: write_parquet(root, fake, image="image", label="label"),
}


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_tensors(tmp_path, form, name):
    fake = make_fake(name)
    dataset = load_dataset(name, FORMS[form](tmp_path / "root", fake))
    assert np.array_equal(dataset.train.images.numpy(), fake.train)
    assert np.array_equal(dataset.test.images.numpy(), fake.test)
    assert dataset.train.labels.tolist() == fake.train_labels
    assert dataset.test.labels.tolist() == fake.test_labels
    assert dataset.classes == tuple(fake.classes)


@pytest.mark.parametrize("form", FORMS)
def test_the_fingerprint_is_the_hash_of_the_data_in_every_form(tmp_path, form):
    fake = make_fake()
    digest = hashlib.sha256()
    for images, labels in ((fake.train, fake.train_labels), (fake.test, fake.test_labels)):
        digest.update(images.tobytes() + np.array(labels, "<i8").tobytes())
    dataset = load_dataset(fake.name, FORMS[form](tmp_path / "root", fake))
    assert dataset.fingerprint == digest.hexdigest()


def test_root_may_be_a_string(tmp_path):
    assert load_dataset("cifar10", str(write_archive(tmp_path, make_fake()))).name == "cifar10"


def test_an_array_in_columns_first_order_is_read_in_the_right_order(tmp_path):
    fake = make_fake("cifar100")
    folder = write_extracted(tmp_path, fake)
    content = {b"data": np.asfortranarray(rows(fake.test)), b"fine_labels": fake.test_labels}
    (folder / "test").write_bytes(python2_pickle(content))
    dataset = load_dataset("cifar100", folder)
    assert np.array_equal(dataset.test.images.numpy(), fake.test)


def test_labels_of_cifar100_are_the_fine_ones(tmp_path):
    fake = make_fake("cifar100")
    folder = write_extracted(tmp_path, fake)
    content = {b"data": rows(fake.test), b"coarse_labels": [0] * 100, b"fine_labels": [7] * 100}
    (folder / "test").write_bytes(python2_pickle(content))
    assert load_dataset("cifar100", folder).test.labels.unique().tolist() == [7]


@pytest.mark.parametrize("others", [["coarse_label"], ["label", "coarse_label"]])
def test_labels_of_cifar100_are_the_fine_ones_in_tables_too(tmp_path, others):
    fake = make_fake("cifar100")
    for split, images, labels in splits(fake):
        structs = [{"bytes": encode(image), "path": None} for image in images]
        columns = {name: [0] * len(labels) for name in others}
        columns |= {"img": structs, "fine_label": labels}
        write_shard(tmp_path / f"{split}-00000-of-00001.parquet", columns, None)
    dataset = load_dataset("cifar100", tmp_path)
    assert dataset.train.labels.tolist() == fake.train_labels
    assert dataset.classes == tuple(str(i) for i in range(100))


@pytest.mark.parametrize("other", ["val", "valid"])
def test_val_is_the_test_split_where_there_is_no_test(tmp_path, other):
    fake = make_fake()
    write_class_folders(tmp_path, fake)
    (tmp_path / "test").rename(tmp_path / other)
    assert len(load_dataset("cifar10", tmp_path).test) == len(fake.test)


def test_test_is_the_test_split_where_there_is_val_too(tmp_path):
    fake = make_fake()
    write_class_folders(tmp_path, fake)
    Image.new("RGB", (32, 32)).save(tmp_path / "extra.png")
    (tmp_path / "val" / "class_000").mkdir(parents=True)
    (tmp_path / "extra.png").rename(tmp_path / "val" / "class_000" / "0.png")
    assert len(load_dataset("cifar10", tmp_path).test) == len(fake.test)


def test_hidden_and_other_files_among_the_images_are_left_out(tmp_path):
    fake = make_fake()
    write_class_folders(tmp_path, fake)
    (tmp_path / "train" / ".DS_Store").mkdir()
    (tmp_path / "train" / "class_000" / "._0.png").write_text("not an image")
    (tmp_path / "train" / "class_000" / "notes.txt").write_text("not an image")
    assert len(load_dataset("cifar10", tmp_path).train) == len(fake.train)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_images_of_other_modes_become_rgb(tmp_path, mode):
    write_class_folders(tmp_path, make_fake())
    file = tmp_path / "train" / "class_000" / "00000"
    file.with_suffix(".png").unlink()
    image = Image.new("RGB", (32, 32), (204, 204, 204)).convert(mode)
    image.save(file.with_suffix(".tif" if mode == "CMYK" else ".png"))
    first = load_dataset("cifar10", tmp_path).train.images[0]
    assert (first.int() - 204).abs().max() <= 1


def test_parquet_without_class_names_has_numbers_for_names(tmp_path):
    write_parquet(tmp_path, make_fake(), named=False)
    assert load_dataset("cifar10", tmp_path).classes == tuple("0123456789")


def test_digits_are_the_first_898_for_training_and_the_rest_for_testing():
    from sklearn.datasets import load_digits

    target = load_digits().target
    dataset = load_dataset("digits")
    assert dataset.train.labels.tolist() == target[:898].tolist()
    assert dataset.test.labels.tolist() == target[898:].tolist()


def test_digits_are_scaled_to_bytes_in_three_equal_channels():
    from sklearn.datasets import load_digits

    grey = torch.from_numpy((load_digits().images * 255 / 16).round()).byte()
    images = load_dataset("digits").train.images
    assert torch.equal(images, grey[:898, :, :, None].expand(-1, -1, -1, 3))


def test_every_name_is_described_in_one_line():
    assert {"cifar10", "cifar100", "digits", "folder", "imagenet"} <= DATASETS.keys()
    assert all(known.about and "\n" not in known.about for known in DATASETS.values())


def test_the_names_are_known_without_importing_torch():
    code = "import codistill.names, sys; print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert answer.stdout == "False\n"


@pytest.mark.long
def test_what_is_optional_is_not_imported_before_it_is_needed():
    code = (
        "import codistill.data.by_name, sys; "
        "print([m for m in ('pyarrow', 'PIL', 'sklearn') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert answer.stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not there")
def test_the_real_cifar100_is_whole():
    dataset = load_dataset("cifar100", REAL)
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert dataset.train.labels.bincount().tolist() == [500] * 100
    assert dataset.test.labels.bincount().tolist() == [100] * 100
    assert (dataset.classes[0], dataset.classes[-1], len(dataset.classes)) == ("apple", "worm", 100)
    # The published per-channel means of the training images, known from everyone's code.
    mean = dataset.train.images.float().mean((0, 1, 2)) / 255
    assert torch.allclose(mean, torch.tensor([0.5071, 0.4865, 0.4409]), atol=1e-4)
