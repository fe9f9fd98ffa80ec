"""What cannot be used is refused in one line that says what, where and what to do."""

import re
import sys
from functools import partial

import data_fakes
import pytest
from data_fakes import (
    encode,
    make_fake,
    write_archive,
    write_class_folders,
    write_extracted,
    write_parquet,
    write_shard,
)
from PIL import Image

from codistill.data import load_dataset
from codistill.errors import MissingExtraError

pytestmark = pytest.mark.usefixtures("cache")
refusal = partial(data_fakes.refusal, read=load_dataset)


def test_an_unknown_name_is_answered_with_the_nearest():
    assert "did you mean 'cifar100'?" in refusal("cifar-100", None)


def test_digits_have_no_root(tmp_path):
    assert "leave out --data.root" in refusal("digits", tmp_path)


def test_a_missing_root_is_named(tmp_path):
    assert refusal("cifar10", tmp_path / "no") == (
        f"{tmp_path}/no does not exist: give an existing file or folder by --data.root"
    )


def test_an_unknown_form_is_answered_with_those_that_are_known(tmp_path):
    message = refusal("cifar10", tmp_path)
    for form in ("cifar-10-python.tar.gz", "cifar-10-batches-py/", ".parquet", "train/<class>/"):
        assert form in message


def test_an_extracted_folder_without_one_of_its_files_is_refused(tmp_path):
    (write_extracted(tmp_path, make_fake()) / "data_batch_4").unlink()
    assert "data_batch_4 is missing" in refusal("cifar10", tmp_path)


@pytest.mark.parametrize("keep", [10, 0.5, 0.999])
def test_an_archive_that_is_cut_off_is_refused(tmp_path, keep):
    archive = write_archive(tmp_path, make_fake())
    data = archive.read_bytes()
    archive.write_bytes(data[: keep if keep > 1 else int(keep * len(data))])
    assert "is damaged or cut off" in refusal("cifar10", archive)


def test_an_archive_with_a_changed_byte_at_its_end_is_refused(tmp_path):
    archive = write_archive(tmp_path, make_fake())
    data = bytearray(archive.read_bytes())
    data[-6] ^= 1  # in gzip's checksum, which is behind everything that is needed
    archive.write_bytes(data)
    assert "is damaged or cut off" in refusal("cifar10", archive)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "file").write_text("hello")
    assert "is damaged or cut off" in refusal("cifar10", tmp_path / "file")


def test_the_archive_of_the_other_cifar_is_refused(tmp_path):
    archive = write_archive(tmp_path, make_fake("cifar10"))
    assert "holds no cifar-100-python/train" in refusal("cifar100", archive)


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_pickle_that_is_cut_off_is_refused_by_name(tmp_path, keep):
    file = write_extracted(tmp_path, make_fake()) / "data_batch_2"
    file.write_bytes(file.read_bytes()[:keep])
    assert f"{file} is damaged or cut off" in refusal("cifar10", tmp_path)


def test_a_pickle_of_something_else_is_refused(tmp_path):
    file = write_extracted(tmp_path, make_fake()) / "data_batch_2"
    file.write_bytes(b"\x80\x02].")
    assert f"{file} holds a list, not a dict" in refusal("cifar10", tmp_path)


def test_class_folders_without_test_are_refused(tmp_path):
    write_class_folders(tmp_path, make_fake())
    (tmp_path / "test").rename(tmp_path / "other")
    assert "train/ but neither test/ nor val/" in refusal("cifar10", tmp_path)


def test_parquet_without_test_is_refused(tmp_path):
    for shard in write_parquet(tmp_path, make_fake()).glob("test-*"):
        shard.unlink()
    assert "no test-*.parquet" in refusal("cifar10", tmp_path)


def test_a_missing_shard_is_noticed(tmp_path):
    write_parquet(tmp_path, make_fake())
    (tmp_path / "train-00001-of-00003.parquet").unlink()
    assert "has 2 of 3 files train-*.parquet" in refusal("cifar10", tmp_path)


@pytest.mark.parametrize("form", [write_class_folders, write_parquet])
def test_data_with_ten_classes_is_not_cifar100(tmp_path, form):
    form(tmp_path, make_fake("cifar10"))
    message = refusal("cifar100", tmp_path)
    assert re.search(r"has 10 class(es| folders), but cifar100 has 100", message)


def test_a_test_class_that_is_not_trained_is_refused(tmp_path):
    write_class_folders(tmp_path, make_fake())
    (tmp_path / "test" / "class_003").rename(tmp_path / "test" / "class_3")
    assert "test has the class 'class_3', which is not in train/" in refusal("cifar10", tmp_path)


def test_a_split_without_images_is_refused(tmp_path):
    write_class_folders(tmp_path, make_fake())
    for image in (tmp_path / "test").rglob("*.png"):
        image.unlink()
    assert "has no test images" in refusal("cifar10", tmp_path)


def test_a_parquet_split_without_rows_is_refused(tmp_path):
    fake = make_fake()
    fake.test, fake.test_labels = fake.test[:1], fake.test_labels[:1]
    write_parquet(tmp_path, fake, shards=1)
    import pyarrow.parquet as pq

    file = tmp_path / "test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    assert "has no test images" in refusal("cifar10", tmp_path)


def test_an_undecodable_file_is_named(tmp_path):
    write_class_folders(tmp_path, make_fake())
    file = tmp_path / "train" / "class_004" / "00008.png"
    file.write_bytes(file.read_bytes()[:500])
    assert refusal("cifar10", tmp_path) == (f"{file} is not a readable image: replace or remove it")


@pytest.mark.parametrize("kind", ["EPS", "TGA", "ICO"])
def test_only_common_formats_are_decoded_whatever_a_file_is_called(tmp_path, kind):
    write_class_folders(tmp_path, make_fake())
    file = tmp_path / "train" / "class_004" / "00008.png"
    Image.new("RGB", (32, 32)).save(file, kind)
    assert f"{file} is not a readable image" in refusal("cifar10", tmp_path)


def test_an_image_of_another_size_is_named(tmp_path):
    write_class_folders(tmp_path, make_fake())
    file = tmp_path / "test" / "class_004" / "00004.png"
    Image.new("RGB", (64, 48)).save(file)
    assert refusal("cifar10", tmp_path) == f"{file} is 64 x 48 pixels: cifar10 has 32 x 32"


def shard_with(tmp_path, image=None, label=0, columns=("img", "label")):
    """A parquet CIFAR-10 whose second train row is the given one."""
    fake = make_fake()
    write_parquet(tmp_path, fake, shards=1)
    good = {"bytes": encode(fake.train[0]), "path": None}
    bad = good if image is None else image
    shard = tmp_path / "train-00000-of-00001.parquet"
    features = {columns[1]: {"names": fake.classes}}
    write_shard(shard, {columns[0]: [good, bad], columns[1]: [0, label]}, features)
    return shard


def test_an_undecodable_row_is_named(tmp_path):
    shard = shard_with(tmp_path, {"bytes": b"no image", "path": None})
    assert f"{shard}, row 1 is not a readable image" in refusal("cifar10", tmp_path)


def test_rows_are_counted_from_the_beginning_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("codistill.data.readers.parquet._ROWS", 1)
    shard = shard_with(tmp_path, {"bytes": b"no image", "path": None})
    assert f"{shard}, row 1 is not" in refusal("cifar10", tmp_path)


def test_a_row_without_bytes_is_named(tmp_path):
    shard = shard_with(tmp_path, {"bytes": None, "path": "elsewhere.png"})
    assert f"{shard}, row 1: no image bytes are stored" in refusal("cifar10", tmp_path)


@pytest.mark.parametrize("label", [10, -1, None])
def test_a_row_with_an_impossible_label_is_named(tmp_path, label):
    shard = shard_with(tmp_path, label=label)
    message = refusal("cifar10", tmp_path)
    assert f"{shard}, row 1: the label is {label}" in message
    assert ("not 0 to 9" if label == 10 else "labels count from 0") in message


def test_a_label_that_is_too_large_is_named_in_a_table_without_class_names(tmp_path):
    fake = make_fake()
    fake.train_labels[3] = 10
    shard = write_parquet(tmp_path, fake, shards=1, named=False) / "train-00000-of-00001.parquet"
    assert f"{shard}, row 3: the label is 10, not 0 to 9" in refusal("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({"img": "text"}, "has the columns 'img', 'label': there has to be one of image bytes"),
        ({"label": [0]}, "the column 'label' holds list<element: int64>: labels are whole numbers"),
        ({"label": 0.5}, "row 0: the column 'label' holds 0.5: labels are whole numbers or names"),
    ],
)
def test_parquet_without_the_columns_is_answered_with_what_is_needed(tmp_path, change, needed):
    write_parquet(tmp_path, make_fake(), shards=1)
    row = {"img": {"bytes": b"", "path": None}, "label": 0} | change
    shard = tmp_path / "train-00000-of-00001.parquet"
    write_shard(shard, {name: [value] for name, value in row.items()}, None)
    message = refusal("cifar10", tmp_path)
    assert str(shard) in message
    assert needed in message


def test_a_split_in_class_folders_without_one_image_is_refused(tmp_path):
    for split in ("train", "test"):
        for kind in make_fake().classes:
            (tmp_path / split / kind).mkdir(parents=True)
    assert "has no train images" in refusal("cifar10", tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 4000])
def test_a_parquet_file_that_is_cut_off_is_refused_by_name(tmp_path, keep):
    write_parquet(tmp_path, make_fake())
    shard = tmp_path / "train-00002-of-00003.parquet"
    shard.write_bytes(shard.read_bytes()[:keep])
    assert f"{shard} is damaged or cut off" in refusal("cifar10", tmp_path)


def test_a_missing_extra_is_answered_with_its_installation(tmp_path, monkeypatch):
    write_parquet(tmp_path, make_fake())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'codistill\[parquet\]'"):
        load_dataset("cifar10", tmp_path)


def test_digits_without_scikit_learn_are_answered_with_its_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'codistill\[digits\]'"):
        load_dataset("digits")
