"""A file is the old one or the new one, whatever happens while it is written."""

import os
import stat

import pytest

from codistill.files import write_bytes, written


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    return file


def test_the_new_file_is_there_once_the_block_has_ended(file):
    with written(file) as temporary:
        temporary.write_bytes(b"new")
        assert file.read_bytes() == b"old"
        assert temporary.parent == file.parent
    assert file.read_bytes() == b"new"
    assert os.listdir(file.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_old_file_stays_if_the_block_raises(file, error):
    def half(place):
        with written(place) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        half(file)
    assert file.read_bytes() == b"old"
    assert os.listdir(file.parent) == ["file"]


def test_the_file_is_flushed_before_it_gets_its_name_and_the_folder_after_it(file, monkeypatch):
    flushed = []
    monkeypatch.setattr(
        "codistill.files.os.fsync",
        lambda fd: flushed.append((stat.S_ISDIR(os.fstat(fd).st_mode), file.read_bytes())),
    )
    write_bytes(file, b"new")
    assert flushed == [(False, b"old"), (True, b"new")]


def test_an_error_names_the_file_and_not_the_temporary_one(file, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("codistill.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_bytes(file, b"new")
    assert caught.value.filename == str(file)
