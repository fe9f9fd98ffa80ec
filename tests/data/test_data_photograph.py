"""Any kind of image file becomes the pixels that a person sees; what is broken is named."""

import io
import math
import random

import numpy as np
import pytest
from photo_fakes import encoded, picture
from PIL import Image

from codistill.data.batches.boxes import centre_box, random_box
from codistill.data.batches.photograph import BrokenImageError, load_crops, load_whole


def whole(content: bytes) -> np.ndarray:
    return load_whole(lambda: content)[1]


def crops(content: bytes, *boxes, size=16, spare=1.0):
    cut = load_crops(lambda: content, lambda w, h: list(boxes), size, spare)
    return [np.asarray(image) for image in cut]


def reason(content: bytes) -> str:
    with pytest.raises(BrokenImageError) as caught:
        whole(content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Kinds of images


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("L", "PNG"), ("1", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "GIF")],
)
def test_every_mode_becomes_rgb(mode, kind):
    image = Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode)
    pixels = whole(encoded(image, kind))
    assert pixels.shape == (10, 20, 3)
    assert pixels.min() >= 250


def test_colours_of_a_cmyk_jpeg_are_not_inverted():
    pixels = whole(encoded(Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK"), quality=100))
    assert np.abs(pixels.astype(int) - (200, 30, 40)).max() <= 6


def test_a_grey_image_has_three_equal_channels():
    pixels = whole(encoded(picture(0).convert("L"), "PNG"))
    assert np.array_equal(pixels, np.asarray(picture(0).convert("L"))[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(kind):
    deep = np.array([[0, 256, 32768, 65535]], np.uint16)
    assert whole(encoded(Image.fromarray(deep), kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_what_is_transparent_is_white():
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    assert whole(encoded(image, "PNG")).tolist() == [[[255, 255, 255], [10, 20, 30]]]


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_what_is_transparent_in_a_palette_is_white(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, 10, 20, 30])
    image.putpixel((1, 0), 1)
    content = encoded(image, "PNG", transparency=transparency)
    assert whole(content).tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_a_grey_image_with_transparency_is_on_white():
    image = Image.new("LA", (1, 1), (0, 128))
    assert 120 <= whole(encoded(image, "PNG"))[0, 0, 0] <= 135


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (8, 8), c) for c in ((250, 0, 0), (0, 250, 0))]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(whole(content).astype(int) - (250, 0, 0)).max() <= 8


def turned(orientation: int, image: Image.Image, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(image, kind, exif=exif)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_exif_says(orientation, kind):
    from PIL import ImageOps

    content = turned(orientation, picture(1, 48, 32), kind)
    stored = Image.open(io.BytesIO(content))
    stored.load()
    assert np.array_equal(whole(content), np.asarray(ImageOps.exif_transpose(stored)))


@pytest.mark.parametrize(
    ("orientation", "shown"), [(1, (6, 4)), (3, (6, 4)), (5, (4, 6)), (8, (4, 6))]
)
def test_crops_are_chosen_of_the_size_that_is_shown(orientation, shown):
    asked = []

    def choose(width, height):
        asked.append((width, height))
        return [(0, 0, width, height)]

    load_crops(lambda: turned(orientation, picture(1, 6, 4)), choose, 4)
    assert asked == [shown]


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_crop_is_of_the_image_as_it_is_shown(orientation):
    """Also where a JPEG is decoded at a reduced size."""
    content = turned(orientation, picture(1, 320, 160), "JPEG")
    shown = whole(content)
    box = (shown.shape[1] / 4, shown.shape[0] / 2, shown.shape[1], shown.shape[0])
    (cut,) = crops(content, box, size=16)
    expected = Image.fromarray(shown).resize((16, 16), Image.Resampling.BILINEAR, box=box)
    assert np.abs(cut.astype(int) - np.asarray(expected)).max() <= 6


def test_damaged_exif_is_no_damaged_image():
    content = encoded(picture(0), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    assert whole(content).shape == (30, 40, 3)


# What is broken


def test_an_empty_file_is_broken():
    assert reason(b"") == "the file is empty"


def test_a_text_is_no_image():
    assert reason(b"<html>404</html>") == "no image, or of a format that is not read"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_an_image_that_is_cut_off_is_broken(kind):
    content = encoded(picture(0, 300, 200), kind)
    assert reason(content[: len(content) // 2])


def test_formats_that_run_programs_are_not_read():
    assert "not read" in reason(encoded(picture(0), "EPS"))


def test_an_image_of_too_many_pixels_is_broken_and_never_decoded():
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    assert reason(png).startswith("too large: more than 178,956,970 pixels")


def test_a_file_that_cannot_be_read_is_broken(tmp_path):
    with pytest.raises(BrokenImageError, match="No such file"):
        load_whole((tmp_path / "gone.jpg").read_bytes)


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files")])
def test_the_trouble_of_the_machine_is_no_broken_image(error):
    def read():
        raise error

    with pytest.raises(type(error)):
        load_whole(read)


# Crops


def test_a_crop_is_that_of_pillow():
    image = picture(3, 60, 40)
    box = (5.5, 3, 30, 35)
    expected = image.resize((16, 16), Image.Resampling.BILINEAR, box=box)
    assert np.array_equal(crops(encoded(image, "PNG"), box)[0], np.asarray(expected))


def test_the_middle_is_that_of_resizing_and_cutting():
    image = picture(3, 512, 512)
    resized = image.resize((256, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((16, 16, 240, 240)))
    box = centre_box(512, 512, 0.875)
    assert np.array_equal(crops(encoded(image, "PNG"), box, size=224)[0], expected)


@pytest.mark.parametrize(("width", "height"), [(512, 256), (256, 512)])
def test_the_middle_is_a_square_of_seven_eighths_of_the_short_side(width, height):
    left, top, right, bottom = centre_box(width, height, 0.875)
    assert (right - left, bottom - top) == (224, 224)
    assert (left + right, top + bottom) == (width, height)


def test_all_crops_of_one_image_are_cut_from_one_decoding():
    image = picture(3, 64, 64)
    reads = []
    cut = load_crops(
        lambda: reads.append(1) or encoded(image, "PNG"),
        lambda w, h: [(0, 0, 32, 32), (32, 32, 64, 64)],
        32,
    )
    assert len(reads) == 1
    assert np.array_equal(np.asarray(cut[0]), np.asarray(image)[:32, :32])
    assert np.array_equal(np.asarray(cut[1]), np.asarray(image)[32:, 32:])


@pytest.mark.parametrize(("share", "shrink"), [(1, 8), (0.5, 4), (0.25, 2), (0.2, 1), (0.1, 1)])
def test_a_large_jpeg_is_decoded_no_smaller_than_the_crop_needs(share, shrink, monkeypatch):
    sizes = []
    real = Image.Image.resize

    def resize(self, *arguments, **options):
        sizes.append(self.size[0])
        return real(self, *arguments, **options)

    content = encoded(picture(3, 640, 640), quality=95)
    side = 640 * share
    monkeypatch.setattr(Image.Image, "resize", resize)
    crops(content, (0, 0, side, side), size=80)
    crops(content, (0, 0, side, side), size=80, spare=2.0)
    assert sizes == [640 // shrink, 640 // max(1, shrink // 2)]


def test_the_smallest_of_several_crops_decides_the_decoding():
    content = encoded(picture(3, 640, 640), quality=95)
    boxes = (0, 0, 640, 640), (0, 0, 80, 80)
    with_draft = crops(content, *boxes, size=80)[1]
    assert np.array_equal(with_draft, crops(content, boxes[1], size=80, spare=math.inf)[0])


@pytest.mark.parametrize("side", [641, 647])
def test_a_reduced_jpeg_shows_the_same(side):
    """Sides that no eighth divides: the reduced image is rounded up."""
    content = encoded(picture(3, side, side + 2), quality=95)
    box = (0, 0, side, side + 2)
    (reduced,), (full,) = (crops(content, box, size=40, spare=s) for s in (1.0, math.inf))
    assert np.abs(reduced.astype(int) - full).max() <= 4


# Random crops


def test_random_crops_lie_inside_and_have_area_and_aspect_in_range():
    rng = random.Random(0)
    for _ in range(500):
        left, top, right, bottom = random_box(300, 200, 0.25, rng)
        assert 0 <= left < right <= 300
        assert 0 <= top < bottom <= 200
        w, h = right - left, bottom - top
        assert 0.24 <= w * h / 60_000 <= 1
        assert 0.74 <= w / h <= 1.35


def test_random_crops_are_distributed_like_those_of_torchvision():
    import torch

    from codistill.importing import optional

    optional("torchvision", "this test")
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.empty(3, 200, 300)
    theirs = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    theirs = np.array([(left, top, left + w, top + h) for top, left, h, w in theirs])
    rng = random.Random(0)
    ours = np.array([random_box(300, 200, 0.08, rng) for _ in range(3000)])
    for column in range(4):
        for quantile in (0.1, 0.5, 0.9):
            expected = np.quantile(theirs[:, column], quantile)
            assert abs(np.quantile(ours[:, column], quantile) - expected) < 10


@pytest.mark.parametrize(("width", "height"), [(1000, 2), (2, 1000), (1, 1)])
def test_a_very_long_image_has_a_crop_too(width, height):
    left, top, right, bottom = random_box(width, height, 0.9, random.Random(0))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert 0.7 <= (right - left) / (bottom - top) <= 1.4
