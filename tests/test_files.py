"""A file is the old one or the new one, whatever happens while it is written."""

import os
import stat
import zipfile

import pytest
import torch

from codistill.errors import InputError
from codistill.files import (
    place_of,
    read_json,
    read_text,
    reading,
    require_small,
    write_bytes,
    write_json,
    write_text,
    written,
)
from codistill.seals import NAME, OPEN
from codistill.tensor_files import read_state, read_weights, write_state, write_weights


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


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is there and no file"):
        write_text(tmp_path / "pipe", "new")
    assert os.listdir(tmp_path) == ["pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_that_takes_no_file_is_an_error_of_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        write_text(tmp_path / "none" / "file", "new")
    assert raised.value.filename == str(tmp_path / "none" / "file")


def test_bytes_of_names_that_are_no_text_are_escaped(file):
    write_text(file, os.fsdecode(b"b\xff.png"))
    assert file.read_bytes() == rb"b\udcff.png"


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


def test_json_comes_back_without_its_seal_and_a_change_is_seen(file):
    write_json(file, {"a": [1, 2.5, None], "b": {"c": "d"}})
    assert read_json(file) == {"a": [1, 2.5, None], "b": {"c": "d"}}
    text = file.read_text()
    file.write_text(text.replace("2.5", "2.6"))
    with pytest.raises(InputError, match="is damaged or was edited: put it back.*delete its line"):
        read_json(file)
    file.write_text("".join(x for x in file.read_text().splitlines(True) if NAME not in x))
    assert read_json(file)["a"] == [1, 2.6, None]  # as the message says
    file.write_bytes(text.replace("\n", "\r\n").encode())  # as Git does on Windows
    assert read_json(file)["a"] == [1, 2.5, None]


def test_a_text_without_a_seal_is_not_checked(file):
    write_text(file, "anything")
    assert read_text(file) == "anything"
    file.write_text(f"# {NAME}: none")
    assert read_text(file) == f"# {NAME}: none"


def test_an_edited_text_may_be_allowed_and_is_noted_then(file, caplog):
    write_text(file, f"# {NAME}: {OPEN}\nepochs: 1\n")
    file.write_text(file.read_text().replace("1\n", "2\n"))
    assert "epochs: 2" in read_text(file, sealed=False)
    assert "was edited since codistill wrote it" in caplog.text


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {"w": torch.randn(40, 40, generator=generator), "n": torch.tensor(3)}


def test_every_bit_of_weights_is_sealed(file):
    about = {"z": 1, "classes": ["a", "b"]}
    write_weights(file, tensors(), about)
    whole, found = read_weights(file)
    assert found == about
    assert torch.equal(whole["w"], tensors()["w"])
    content = file.read_bytes()
    for i in range(0, len(content), 97):
        file.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        try:
            again, found = read_weights(file)
        except InputError:
            continue
        assert found.items() >= about.items()  # it was a bit of the seal's own name
        assert all(torch.equal(again[name], whole[name]) for name in whole)
    file.write_bytes(content.replace(b'[\\"a\\"', b'[\\"c\\"'))
    with pytest.raises(InputError, match=f"its content is not that of the '{NAME}' in it"):
        read_weights(file)


def test_a_bit_beyond_the_first_megabyte_is_sealed_too(file):
    write_weights(file, {"w": torch.zeros(2**19)}, {})
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"\1")
    with pytest.raises(InputError, match="its content is not that of"):
        read_weights(file)


def test_weights_of_others_need_no_seal(file):
    from safetensors.torch import save_file

    save_file(tensors(), file, {"format": "pt"})
    assert torch.equal(read_weights(file)[0]["w"], tensors()["w"])


def test_a_changed_state_is_seen(file):
    write_state(file, tensors())
    content = file.read_bytes()
    place = content.index(tensors()["w"].numpy().tobytes())
    file.write_bytes(content[:place] + b"\1" + content[place + 1 :])
    with pytest.raises(InputError, match="Bad CRC-32"):
        read_state(file)


def test_a_state_of_others_needs_no_checksums(file):
    torch.serialization.set_crc32_options(False)
    try:
        write_state(file, tensors())
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(file) as archive:
        assert not any(member.CRC for member in archive.infolist())
    assert torch.equal(read_state(file)["w"], tensors()["w"])
    torch.save(tensors(), file, _use_new_zipfile_serialization=False)
    assert torch.equal(read_state(file)["w"], tensors()["w"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file"), "there is no file"),
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
        (RecursionError("too deep\nhere"), r"is damaged or no thing \(too deep\)"),
        (KeyError("x"), "is damaged or no thing"),
        (InputError("said already"), "^said already$"),
    ],
)
def test_whatever_a_parser_raises_is_an_input_error(file, error, said):
    with pytest.raises(InputError, match=said), reading(file, "thing"):
        raise error


def recursive():
    tree = []
    tree.append(tree)
    return tree


def laughs():
    tree = ["ha"]
    for _ in range(20):
        tree = [tree] * 10
    return tree


def deep(levels):
    tree = {}
    for _ in range(levels):
        tree = {"a": tree}
    return tree


TREES = recursive(), laughs(), deep(200), {"a": 10**4000}, [2**64]


@pytest.mark.parametrize("tree", TREES, ids=range(len(TREES)))
def test_what_would_hurt_is_refused(tree):
    with pytest.raises(ValueError, match="too"):
        require_small(tree)


def test_what_is_written_usually_is_small():
    require_small({"a": [[1, -(2**63)]] * 1000, "b": 1e300, "c": None, "d": {"e": {1, 2}}})


@pytest.mark.parametrize("text", ["a\0b", "~nobody-of-this-name/x"])
def test_a_text_that_is_no_path_is_named(text):
    with pytest.raises(InputError, match="is no path"):
        place_of(text)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_device_without_memory_is_no_damage_of_the_file(error, tmp_path):
    with pytest.raises(type(error)), reading(tmp_path / "file", "checkpoint"):
        raise error
