"""`codistill predict` on many photographs against timm's inference script.

    python benchmarks/predict.py FOLDER --workers 2

The JPEGs in FOLDER are classified by one network (timm/mobilenetv3_small_100, random weights, 224
pixels), repeated until they are 1,000. timm's way is that of its `inference.py`: `create_dataset`,
`create_loader` with the same batch size, workers, crop and interpolation, softmax and top-5. Both
start their workers anew in each round, as a command does. Imports and the building of the network
are not counted.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from codistill import build_network
from codistill.importing import optional
from codistill.runs.predict import image_files, predict
from codistill.runs.student import Student
from figures import Figure, arguments, report
from interleave import interleave, rates, ratio, timed

NETWORK = "timm/mobilenetv3_small_100"
SIDE, CROP, CLASSES = 224, 0.875, 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=64)
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    about = {"classes": list(map(str, range(CLASSES))), "image_size": [SIDE, SIDE], "crop": CROP}
    about |= {"mean": [255 * x for x in MEAN], "std": [255 * x for x in STD]}
    timm = optional("timm.data", "the benchmark")
    network = build_network(NETWORK, CLASSES, image_size=(SIDE, SIDE)).eval()
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "photographs"
        inside.mkdir()
        given = image_files([str(options.folder)])
        for i in range(options.images):
            file = Path(given[i % len(given)])
            shutil.copy(file, inside / f"{i:05d}{file.suffix.lower()}")

        def ours() -> None:
            images = image_files([str(inside)])
            predict(Student(network, about), images, 5, options.batch_size, options.workers)

        def theirs() -> None:
            loader = timm.create_loader(
                timm.create_dataset("", str(inside)),
                input_size=(3, SIDE, SIDE),
                batch_size=options.batch_size,
                use_prefetcher=True,
                num_workers=options.workers,
                crop_pct=CROP,
                interpolation="bilinear",
                mean=MEAN,
                std=STD,
                device=torch.device("cpu"),
            )
            with torch.inference_mode():
                for images, _ in loader:
                    network(images).softmax(dim=1).topk(5)

        contenders = {"ours": timed(ours), "timm": timed(theirs)}
        seconds = interleave(contenders, options.rounds, warm_up=1)
    return [
        *rates(seconds, options.images),
        ratio("time of timm over ours", seconds["timm"], seconds["ours"]),
    ]


if __name__ == "__main__":
    main()
