"""Photographs read, cut at random, mirrored and normalised: ours against torchvision and decoders.

    python benchmarks/photographs.py --threads 1 --clock cpu
    python benchmarks/photographs.py --threads 1 --clock cpu --folder IMAGENET_PHOTOGRAPHS

160 JPEGs of 500 x 375 pixels, as ImageNet's mostly are, and the same at 1600 x 1200, as cameras
make them, become crops of 224 x 224 in one process. They are parts of the two photographs of
scikit-learn. "torchvision" is its v2 transforms on Pillow's images, as its reference training has
them. simplejpeg is libjpeg-turbo with as little around it as there is, OpenCV its own; both take
part if they are installed (`pip install simplejpeg opencv-python-headless`). "decoding" is
simplejpeg's alone, at full size: no reader of these files that decodes all pixels can be faster.
All but torchvision's cut out the same boxes. "copies" is ours with `data.cache` 256, after the
copies are made; it reads them from files, and the others their images from memory.
"""

import argparse
import functools
import io
import random
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from codistill.data.batches.boxes import random_box
from codistill.data.batches.copies import Copies
from codistill.data.batches.streamed import CropAugmentation, StreamedTrainBatches
from codistill.data.encoded import EncodedSplit, Files, Held, Packed, Store
from codistill.data.normalisation import IMAGENET
from codistill.importing import optional
from figures import Figure, arguments, report
from interleave import Seconds, interleave, rates, ratio, timed

SIDE = 224  # pixels
CACHED = 256  # pixels
BATCH = 32


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=9)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--folder", type=Path, help="folder of photographs in place of these")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    figures = []
    sizes = ((500, 375), (1600, 1200))
    made = {f"{w} x {h}": functools.partial(photographs, options.images, w, h) for w, h in sizes}
    if options.folder:
        files = sorted(path for path in options.folder.rglob("*") if path.is_file())
        made = {options.folder.name: lambda: [f.read_bytes() for f in files[: options.images]]}
    for of, make in made.items():
        encoded = make()
        with tempfile.TemporaryDirectory() as folder:
            figures += measured(encoded, Path(folder), of, options)
    return figures


def measured(
    encoded: list[bytes], folder: Path, of: str, options: argparse.Namespace
) -> list[Figure]:
    """The figures of one kind of photographs.

    Args:
        encoded: photographs.
        folder: an empty folder for files.
        of: the kind, for names.
        options: arguments of the program.
    """
    works = contenders(encoded, folder)
    timed_works = {name: timed(work, options.clock) for name, work in works.items()}
    seconds = interleave(timed_works, options.rounds, warm_up=1)
    figures = rates({f"{name}, {of}": s for name, s in seconds.items()}, len(encoded))
    return figures + against(seconds, of)


def against(seconds: Seconds, of: str) -> list[Figure]:
    """How many times as long as ours each of the others takes."""
    ours = seconds.pop("ours")
    return [ratio(f"{name} over ours, {of}", s, ours) for name, s in seconds.items()]


def photographs(count: int, width: int, height: int) -> list[bytes]:
    """JPEGs of different parts of two photographs, each enlarged to one size."""
    whole = [Image.fromarray(image) for image in load_sample_images().images]
    rng, found = random.Random(0), []
    for i in range(count):
        image = whole[i % len(whole)]
        w = rng.randint(400, image.width)
        h = w * height // width
        left, top = rng.randint(0, image.width - w), rng.randint(0, max(0, image.height - h))
        part = image.resize(
            (width, height), Image.Resampling.BICUBIC, (left, top, left + w, min(top + h, 427))
        )
        file = io.BytesIO()
        part.save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def contenders(encoded: list[bytes], folder: Path) -> dict[str, Callable[[], None]]:
    """Each reads all images once, into normalised batches (b, 3, 224, 224).

    Args:
        encoded: photographs.
        folder: an empty folder for files.
    """
    names = Packed(map(str, range(len(encoded))))
    for i, content in enumerate(encoded):
        (folder / names[i]).write_bytes(content)
    copies = Copies(Files(str(folder), names), folder / "copies", CACHED)
    works = {
        "ours": functools.partial(ours, Held(encoded, names)),
        "copies": functools.partial(ours, copies),
        "torchvision": lambda: read(encoded, torchvision_reader()),
    }
    jpeg, cv2 = installed("simplejpeg"), installed("cv2")
    if jpeg:
        works["simplejpeg"] = lambda: read(encoded, simplejpeg_reader(jpeg))
        works["decoding"] = lambda: [jpeg.decode_jpeg(image) for image in encoded]
    if cv2:
        cv2.setNumThreads(torch.get_num_threads())
        works["OpenCV"] = lambda: read(encoded, opencv_reader(cv2))
    return works


def ours(store: Store) -> None:
    split = EncodedSplit(torch.zeros(len(store), dtype=torch.int64), store, np.arange(len(store)))
    for _ in StreamedTrainBatches(split, BATCH, IMAGENET, CropAugmentation(SIDE)):
        pass


def installed(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError:
        return None


def read(encoded: list[bytes], crop: Callable[[bytes], Any]) -> None:
    """Batches of crops, normalised as ours are; torchvision's are already."""
    for i in range(0, len(encoded), BATCH):
        crops = [crop(image) for image in encoded[i : i + BATCH]]
        if isinstance(crops[0], Tensor):
            torch.stack(crops)
        else:
            IMAGENET(torch.from_numpy(np.stack(crops)))


def torchvision_reader() -> Callable[[bytes], Tensor]:
    v2 = optional("torchvision.transforms.v2", "this contender")
    augment = v2.Compose(
        [
            v2.RandomResizedCrop(SIDE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    return lambda content: augment(Image.open(io.BytesIO(content)).convert("RGB"))


def simplejpeg_reader(jpeg: ModuleType) -> Callable[[bytes], np.ndarray]:
    """Decoded at a reduced size where the crop allows it, as ours is, then resized by Pillow."""
    rng = random.Random(0)

    def crop(content: bytes) -> np.ndarray:
        height, width, *_ = jpeg.decode_jpeg_header(content)
        left, top, right, bottom = random_box(width, height, 0.08, rng)
        needed = SIDE / min(right - left, bottom - top)
        if needed <= 0.5:
            size = {"min_height": int(height * needed), "min_width": int(width * needed)}
        else:
            size = {}
        pixels = jpeg.decode_jpeg(content, **size)
        shrink = round(width / pixels.shape[1])
        box = (left / shrink, top / shrink, right / shrink, bottom / shrink)
        small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)
        return flipped(np.asarray(small), rng)

    return crop


def opencv_reader(cv2: Any) -> Callable[[bytes], np.ndarray]:
    """Decoded at full size and resized over areas, which averages as Pillow's resizing does."""
    rng = random.Random(0)

    def crop(content: bytes) -> np.ndarray:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        height, width, _ = pixels.shape
        left, top, right, bottom = map(int, random_box(width, height, 0.08, rng))
        part = pixels[top:bottom, left:right]
        kind = cv2.INTER_AREA if min(part.shape[:2]) > SIDE else cv2.INTER_LINEAR
        return flipped(cv2.resize(part, (SIDE, SIDE), interpolation=kind)[:, :, ::-1], rng)

    return crop


def flipped(pixels: np.ndarray, rng: random.Random) -> np.ndarray:
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


if __name__ == "__main__":
    main()
