"""Copies are read in place of images: as good, whatever happened to them, and never of others."""

import dataclasses
import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from photo_fakes import encoded, files, photos, picture
from PIL import Image

from codistill.data import open_dataset
from codistill.data.batches.copies import Copies, place_of_copies, with_copies
from codistill.data.batches.photograph import BrokenImageError, load_whole, reencoded
from codistill.data.encoded import Files, Packed
from codistill.errors import InputError

SIDE = 24  # pixels


@pytest.fixture
def store(tmp_path):
    """One photograph of 40 x 30 pixels."""
    (tmp_path / "one.png").write_bytes(encoded(picture(1), "PNG"))
    return Files(str(tmp_path), Packed(["one.png"]))


@pytest.fixture
def copies(store, tmp_path):
    return Copies(store, tmp_path / "copies", SIDE)


def the_copy(copies):
    (name,) = files(copies.folder)
    return copies.folder / name


def spoil(path):
    """Another content, which nobody can tell from outside."""
    stat = os.stat(path)
    Path(path).write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def pixels(content, bits=None):
    return load_whole(lambda: content, bits).pixels.astype(int)


# What a copy holds


def test_a_copy_is_the_image_with_a_smaller_short_side():
    small = picture(1, 90, 60).resize((36, 24), Image.Resampling.BILINEAR)
    copy = reencoded(encoded(picture(1, 90, 60), "PNG"), SIDE)
    assert copy == encoded(small, quality=90)


def test_a_comment_is_left_out():
    content = encoded(picture(1, 90, 60), comment=b"x" * 1000)
    assert b"xxx" not in reencoded(content, SIDE)


@pytest.mark.parametrize("size", [(24, 24), (100, 24), (8, 90)])
def test_an_image_that_is_no_larger_is_copied_as_it_is(size):
    content = encoded(picture(1, *size), "PNG")
    assert reencoded(content, SIDE) == content


def test_a_copy_that_no_jpeg_can_hold_is_the_image():
    content = encoded(Image.new("L", (30, 90_000)), "PNG")
    assert reencoded(content, SIDE) == content


def exif(turn):
    found = Image.Exif()
    found[274] = turn
    return found


@pytest.mark.parametrize("turn", [3, 6])
def test_a_copy_is_turned_once(turn):
    content = encoded(picture(1, 90, 60), quality=95, exif=exif(turn))
    whole = Image.fromarray(pixels(content).astype(np.uint8))
    size = (24, 36) if turn == 6 else (36, 24)
    small = np.asarray(whole.resize(size, Image.Resampling.BILINEAR))
    assert np.abs(pixels(reencoded(content, SIDE)) - small).mean() < 3


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("CMYK", "JPEG"), ("P", "GIF")])
def test_every_mode_is_copied_in_its_colours(mode, kind):
    content = encoded(picture(1, 90, 60).convert(mode), kind)
    whole = Image.fromarray(pixels(content).astype(np.uint8))
    small = np.asarray(whole.resize((36, 24), Image.Resampling.BILINEAR))
    assert np.abs(pixels(reencoded(content, SIDE)) - small).mean() < 6


def test_transparent_areas_are_white_in_a_copy():
    content = encoded(Image.new("RGBA", (40, 30), (0, 0, 0, 0)), "PNG")
    assert pixels(reencoded(content, SIDE)).min() > 250


def test_16_bits_are_copied_as_they_are_used():
    deep = Image.fromarray(np.full((30, 40), 2048, np.uint16))
    assert abs(pixels(reencoded(encoded(deep, "PNG"), SIDE, 12)).mean() - 128) < 2
    assert pixels(reencoded(encoded(deep, "PNG"), SIDE)).mean() < 10


def test_a_large_jpeg_is_decoded_at_a_reduced_size(monkeypatch):
    drafts = []
    real = Image.Image.resize

    def resize(self, *args, **options):
        drafts.append(self.size)
        return real(self, *args, **options)

    content = encoded(picture(1, 200, 150))
    monkeypatch.setattr(Image.Image, "resize", resize)
    reencoded(content, SIDE)
    assert drafts == [(100, 75)]


# When it counts


def test_a_copy_is_made_once(copies):
    first = copies.read(0)
    spoil(copies.source.path(0))
    assert copies.read(0) == first == pickle.loads(pickle.dumps(copies)).read(0)


def test_a_copy_in_a_folder_that_cannot_be_written_is_read(copies, monkeypatch):
    first = copies.read(0)
    monkeypatch.setattr(Path, "write_bytes", lambda *_: pytest.fail("written"))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("made"))
    assert copies.read(0) == first


@pytest.mark.parametrize("damage", ["empty", "short", "cut", "text", "bit"])
def test_a_damaged_copy_is_made_again(copies, damage):
    expected = copies.read(0)
    file = the_copy(copies)
    whole = file.read_bytes()
    bit = bytearray(whole)
    bit[100] ^= 1
    broken = {"empty": b"", "short": b"x", "cut": whole[:-1], "text": b"hello " * 9, "bit": bit}
    file.write_bytes(broken[damage])
    assert copies.read(0) == expected
    assert file.read_bytes() == whole


def test_a_copy_of_a_file_that_has_changed_is_made_again(copies):
    path = Path(copies.source.path(0))
    path.write_bytes(encoded(picture(1), "BMP"))
    before, stat = copies.read(0), path.stat()
    path.write_bytes(encoded(picture(2), "BMP"))
    os.utime(path, ns=(0, stat.st_mtime_ns + 1))
    assert path.stat().st_size == stat.st_size
    assert copies.read(0) != before
    assert len(files(copies.folder)) == 1


def test_a_folder_where_the_copy_should_be_is_one_line(copies):
    copies.read(0)
    file = the_copy(copies)
    file.unlink()
    file.mkdir()
    with pytest.raises(InputError, match=f"the cache {copies.folder} cannot be written"):
        copies.read(0)


def test_a_full_disk_is_one_line_and_leaves_no_copy_that_counts(copies, monkeypatch):
    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="No space left on device.*CODISTILL_CACHE"):
            copies.read(0)
    assert copies.read(0) == reencoded(copies.source.read(0), SIDE)


@pytest.mark.parametrize("keep", [0, 40, 800])
def test_a_broken_image_is_broken_for_the_same_reason(copies, keep):
    path = Path(copies.source.path(0))
    path.write_bytes(encoded(picture(1, 90, 60))[:keep])
    reasons = []
    for store in (copies.source, copies):
        with pytest.raises(BrokenImageError) as caught:
            load_whole(lambda s=store: s.read(0))
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        copies.read(0)


# Which image it is of


def read_all(dataset):
    return {
        part.name(i): (part.read(i), part.store.source.read(int(part.index[i])))
        for part in dataset.splits.values()
        for i in range(len(part))
    }


def test_images_of_the_same_name_have_copies_of_their_own(tmp_path, cache):
    photos(tmp_path / "a", 6)
    (tmp_path / "a" / "cat" / 'CON: "\udcff?*.').with_suffix(".jpg").write_bytes(
        encoded(picture(9))
    )
    dataset = with_copies(open_dataset("folder", tmp_path / "a"), "a", SIDE)
    found = read_all(dataset)
    assert len(found) == 7
    assert all(copy == reencoded(image, SIDE) for copy, image in found.values())
    (folder,) = cache.iterdir()
    assert folder.name.startswith(f"folder-{SIDE}-")
    assert len(files(folder)) == 7
    assert all(set(name) <= {*"0123456789abcdef/"} for name in files(folder))


def test_places_sides_and_bits_have_folders_of_their_own(tmp_path, cache):
    photos(tmp_path / "a", 4)
    dataset = open_dataset("folder", tmp_path / "a")
    deep = {s: dataclasses.replace(part, bits=12) for s, part in dataset.splits.items()}
    for root, side in (("a", SIDE), ("b", SIDE), ("a", 20)):
        with_copies(dataset, root, side)
    found = with_copies(dataclasses.replace(dataset, splits=deep), "a", SIDE)
    assert found.splits["all"].store.bits == 12
    assert len(list(cache.iterdir())) == 4


def test_the_line_says_where_copies_are_and_how_much_disk_they_take(tmp_path, cache):
    photos(tmp_path / "a", 12)
    (tmp_path / "a" / "cat" / "000.jpg").write_bytes(b"")
    part = with_copies(open_dataset("folder", tmp_path / "a"), "a", SIDE).splits["all"]
    line = place_of_copies(part, 10**8)
    (folder,) = cache.iterdir()
    size = np.mean([os.path.getsize(folder / name) - 32 for name in files(folder)])
    assert f"side of {SIDE}" in line
    assert f"about {size / 10:,.1f} GB in {folder}, where " in line
    assert len(files(folder)) == 7  # of the eight that were looked at


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot be written"):
        with_copies(open_dataset("folder", photos(tmp_path / "a", 4).store.root), "a", SIDE)
