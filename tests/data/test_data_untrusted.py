"""Pickles and archives from strangers do no harm."""

import pickle
import tarfile
import warnings

import numpy as np
import pytest
from data_fakes import make_fake, python2_pickle, python_files, rows, write_archive, write_extracted

from codistill.data import load_dataset
from codistill.data.readers.cifar_pickles import pixel_rows, read_pickle
from codistill.errors import InputError

pytestmark = pytest.mark.usefixtures("cache")


def test_the_fake_pickles_of_these_tests_are_what_numpy_reads():
    images = rows(make_fake().train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of what Python 2 wrote
        content = pickle.loads(python2_pickle({b"data": images}), encoding="bytes")
    assert np.array_equal(content[b"data"], images)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_written_anew_by_python_3_are_read(protocol):
    images = rows(make_fake().train)
    content = read_pickle(pickle.dumps({b"data": images}, protocol), "here")
    assert np.array_equal(pixel_rows(content[b"data"], "here"), images)


def attack(victim):
    """A pickle that creates the file `victim` when it is believed."""
    return b"\x80\x02cbuiltins\nopen\n(U" + bytes([len(victim)]) + victim + b"U\x01wtR."


def test_a_malicious_pickle_is_refused_by_name_and_not_run(tmp_path):
    folder = write_extracted(tmp_path, make_fake())
    victim = tmp_path / "victim"
    (folder / "data_batch_3").write_bytes(attack(str(victim).encode()))
    with pytest.raises(InputError, match=r"data_batch_3 asks to run builtins\.open"):
        load_dataset("cifar10", tmp_path)
    assert not victim.exists()


def test_the_attack_of_these_tests_works_on_plain_pickle(tmp_path):
    victim = tmp_path / "victim"
    with pickle.loads(attack(str(victim).encode()), encoding="latin1"):
        assert victim.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "numpy.core.multiarray scalar",
        "numpy load",
        "numpy ndarray.tofile",
        "_codecs decode",
    ],
)
def test_only_what_arrays_need_is_let_through(name):
    module, attribute = name.split()
    data = f"c{module}\n{attribute}\n.".encode()
    with pytest.raises(InputError, match=f"asks to run {module}.{attribute}"):
        read_pickle(data, "here")


@pytest.mark.parametrize("build", [b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n"])
def test_a_pickle_cannot_change_how_the_next_one_is_read(build):
    poison = b"\x80\x02" + build + b"(N}X\x0c\x00\x00\x00__setstate__K\x01stb0}."
    with pytest.raises(InputError):
        read_pickle(poison, "here")
    images = rows(make_fake().train)
    content = read_pickle(python2_pickle({b"data": images}), "here")
    assert np.array_equal(pixel_rows(content[b"data"], "here"), images)


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((20, 3072), "i2"),
        np.zeros((20, 3071), "u1"),
        np.zeros(3072, "u1"),
        [1, 2, 3],
        b"bytes",
        None,
    ],
    ids=repr,
)
def test_images_that_are_not_rows_of_bytes_are_refused(tmp_path, data):
    folder = write_extracted(tmp_path, make_fake("cifar100"))
    content = {b"data": data, b"fine_labels": [0] * 20}
    (folder / "train").write_bytes(python2_pickle(content))
    with pytest.raises(InputError, match="train has no images as an array of bytes"):
        load_dataset("cifar100", folder)


def test_an_array_of_objects_is_refused():
    data = pickle.dumps({b"data": np.array([[None] * 3072])}, 2)
    with pytest.raises(InputError, match="no images as an array of bytes"):
        pixel_rows(read_pickle(data, "here")[b"data"], "here")


def test_an_array_that_claims_more_rows_than_it_has_is_refused():
    data = python2_pickle({b"data": np.zeros((2, 3072), "u1")})
    data = data.replace(b"K\x02J\x00\x0c", b"K\x09J\x00\x0c")
    with pytest.raises(InputError, match="no images as an array of bytes"):
        pixel_rows(read_pickle(data, "here")[b"data"], "here")


@pytest.mark.parametrize(
    "labels", [[0] * 199 + [100], [0] * 199 + [-1], [0] * 199 + [True], [b"0"] * 200, None]
)
def test_labels_that_are_not_numbers_of_classes_are_refused(tmp_path, labels):
    fake = make_fake("cifar100")
    folder = write_extracted(tmp_path, fake)
    content = {b"data": rows(fake.train), b"fine_labels": labels}
    (folder / "train").write_bytes(python2_pickle(content))
    with pytest.raises(InputError, match="train: fine_labels is not a list of numbers 0 to 99"):
        load_dataset("cifar100", folder)


def test_as_many_labels_as_images_are_needed(tmp_path):
    fake = make_fake("cifar100")
    folder = write_extracted(tmp_path, fake)
    content = {b"data": rows(fake.train), b"fine_labels": [0] * 199}
    (folder / "train").write_bytes(python2_pickle(content))
    with pytest.raises(InputError, match="train has 200 images and 199 labels"):
        load_dataset("cifar100", folder)


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def test_members_that_leave_the_folder_are_not_written(tmp_path):
    fake = make_fake()
    outside = tarfile.TarInfo("../escaped"), b"outside"
    absolute = tarfile.TarInfo(str(tmp_path / "escaped")), b"outside"
    archive = write_archive(tmp_path / "a" / "b", fake, extra=[outside, absolute])
    dataset = load_dataset("cifar10", archive)
    assert np.array_equal(dataset.train.images.numpy(), fake.train)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_place_of_files_are_not_followed(tmp_path, kind):
    fake = make_fake()
    secret = tmp_path / "secret"
    secret.write_bytes(python_files(fake)["test_batch"])
    files = {name: data for name, data in python_files(fake).items() if name != "test_batch"}
    extra = [link("cifar-10-batches-py/test_batch", str(secret), kind)]
    archive = write_archive(tmp_path, fake, files, extra)
    with pytest.raises(InputError, match="holds no cifar-10-batches-py/test_batch"):
        load_dataset("cifar10", archive)


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("codistill.data.readers.cifar.ARCHIVE_LIMIT", 100_000)
    archive = write_archive(tmp_path, make_fake())
    with pytest.raises(InputError, match="unpacks to more than 100000 bytes"):
        load_dataset("cifar10", archive)


def test_a_huge_member_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("codistill.data.readers.cifar.MEMBER_LIMIT", 10_000)
    archive = write_archive(tmp_path, make_fake())
    with pytest.raises(InputError, match=r"data_batch_1 has \d+ bytes: refused"):
        load_dataset("cifar10", archive)
