"""What was decoded once is kept, and never trusted blindly."""

import logging
import os
import threading
from pathlib import Path

import pytest
import torch
from data_fakes import make_fake, write_archive, write_class_folders

from codistill.data import load_dataset
from codistill.files import cache_folder
from codistill.tensor_files import read_weights

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def archive(tmp_path):
    return write_archive(tmp_path / "source", make_fake())


def spoil(file):
    """Other bytes, but size and time as before: only who decodes the file notices."""
    stat = file.stat()
    file.write_bytes(bytes(stat.st_size))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_the_second_time_nothing_is_decoded(archive):
    first = load_dataset("cifar10", archive)
    spoil(archive)
    second = load_dataset("cifar10", archive)
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)
    assert (first.classes, first.fingerprint) == (second.classes, second.fingerprint)


def test_a_source_that_has_changed_is_decoded_again(archive):
    load_dataset("cifar10", archive)
    write_archive(archive.parent, make_fake(seed=1))
    os.utime(archive, ns=(0, 0))
    images = load_dataset("cifar10", archive).train.images
    assert torch.equal(images, torch.from_numpy(make_fake(seed=1).train))


def test_an_image_that_was_added_is_noticed(tmp_path):
    root = write_class_folders(tmp_path / "root", make_fake())
    before = len(load_dataset("cifar10", root).train)
    folder = root / "train" / "class_000"
    (folder / "more.png").write_bytes((folder / "00000.png").read_bytes())
    assert len(load_dataset("cifar10", root).train) == before + 1


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "bit"])
def test_a_damaged_cache_file_is_made_again(archive, cache, damage, caplog):
    expected = load_dataset("cifar10", archive)
    (file,) = cache.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1000] ^= 1
    file.write_bytes({"empty": b"", "cut": data[:9000], "text": b"hello", "bit": data}[damage])
    again = load_dataset("cifar10", archive)
    assert torch.equal(again.train.images, expected.train.images)
    assert torch.equal(again.test.images, expected.test.images)
    assert "made again" in caplog.text
    spoil(archive)  # the new cache file is whole
    assert load_dataset("cifar10", archive).fingerprint == expected.fingerprint


def test_a_cache_that_cannot_be_written_is_one_line_of_warning(archive, cache, caplog):
    cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset("cifar10", archive)
    assert len(dataset.train) == 20
    (record,) = caplog.records
    assert "cannot be written" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_names_and_fingerprint_are_in_the_cache_files_metadata(archive, cache):
    dataset = load_dataset("cifar10", archive)
    (file,) = cache.glob("*.safetensors")
    assert file.suffix == ".safetensors"
    about = read_weights(file)[1]
    assert about["fingerprint"] == dataset.fingerprint
    assert "class_009" in about["classes"]


def test_two_at_once_both_get_the_data_and_leave_one_file(archive, cache):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(load_dataset("cifar10", archive)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({dataset.fingerprint for dataset in found}) == 1
    assert len(found) == 4
    assert len(list(cache.glob("*.safetensors"))) == 1


def test_writers_take_turns_and_remove_what_a_killed_one_left(archive, cache, monkeypatch):
    cache.mkdir(parents=True)
    load_dataset("cifar10", archive)
    (file,) = cache.glob("*.safetensors")
    file.unlink()
    leftover = cache / f".{file.name}.of_a_killed_process.tmp"
    leftover.write_bytes(b"half")
    written, alone = [], threading.Lock()

    def fsync(_):
        assert alone.acquire(blocking=False)  # no other writer is at work
        written.append(len(list(cache.glob(".*.tmp*"))))
        alone.release()

    monkeypatch.setattr("codistill.files.os.fsync", fsync)
    threads = [threading.Thread(target=load_dataset, args=("cifar10", archive)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.exists()
    assert not leftover.exists()
    assert max(written) == 1


def test_what_is_done_to_the_tensors_does_not_reach_the_cache(archive):
    expected = load_dataset("cifar10", archive).fingerprint
    load_dataset("cifar10", archive).train.images.zero_()
    again = load_dataset("cifar10", archive)
    assert again.fingerprint == expected
    assert again.train.images.any()


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("CODISTILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "codistill"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "codistill"
