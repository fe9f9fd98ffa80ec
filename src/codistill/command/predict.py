"""`codistill predict`: classifies photographs."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from codistill.command.options import Parser, add_trust, add_workers, positive
from codistill.errors import InputError

if TYPE_CHECKING:
    from codistill.runs.predict import Prediction


def main(argv: list[str]) -> int:
    """`codistill predict MODEL IMAGE ...`; 1 where an image is broken."""
    parser = Parser(
        prog="codistill predict",
        description="Classifies photographs, cut and normalised as in the evaluation of the run.",
        epilog="Example: codistill predict runs/photos holiday/ --top 1 --format csv --out x.csv",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="folder of a run or of an export, or student.safetensors"
    )
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="an image, a folder with images at any depth, or a pattern such as 'photos/**/*.jpg'",
    )
    parser.add_argument(
        "--top", type=positive, metavar="N", default=5, help="classes of each image (default: 5)"
    )
    parser.add_argument(
        "--of",
        metavar="CLASSIFIER",
        default="student",
        help="of a run: student, peer0, ensemble, fused, or another classifier of its report "
        "(default: student)",
    )
    parser.add_argument(
        "--format",
        choices=["table", "json", "csv"],
        default="table",
        help="form of the answer (default: table)",
    )
    parser.add_argument("--out", metavar="FILE", help="write the answer to a file")
    parser.add_argument(
        "--device", default="auto", help="device to compute on, such as cpu or cuda:1"
    )
    parser.add_argument(
        "--batch_size",
        type=positive,
        metavar="B",
        default=64,
        help="images at a time (default: 64)",
    )
    add_workers(parser, default="one for each core; none for a single batch")
    add_trust(parser)
    options = parser.parse_args(argv)

    from rich.console import Console

    from codistill import files
    from codistill.data.batches.workers import available_cores
    from codistill.messages import counted, note
    from codistill.runs.classifier import open_classifier
    from codistill.runs.predict import image_files, predict
    from codistill.runs.progress import live_bars

    out = files.place_of(options.out) if options.out else None
    if out is not None and not (out.is_file() if out.exists() else out.parent.is_dir()):
        raise InputError(f"--out {out} is no file in a folder that is there")
    if out is not None and not os.access(out.parent, os.W_OK):
        raise InputError(f"--out {out}: its folder cannot be written")
    images = image_files(options.images)
    student = open_classifier(
        options.model, options.of, options.device, options.trust_code == "true"
    )
    several = len(images) > options.batch_size
    workers = (available_cores() if several else 0) if options.workers is None else options.workers
    with live_bars(Console(stderr=True)) as progress:
        bar = progress.add_task("images", total=len(images))
        found = predict(
            student,
            images,
            options.top,
            options.batch_size,
            workers,
            lambda done: progress.advance(bar, done),
        )
    text = "".join(_FORMS[options.format](found))
    if out is None:
        sys.stdout.write(text)
    else:
        files.write_text(out, text)
    broken = [p for p in found if p.broken]
    for p in broken:
        note(f"image {p.image} is broken: {p.broken}")
    if broken:
        note(f"{counted(len(broken), 'image')} of {len(found):,} cannot be read")
    return 1 if broken else 0


def _table(found: "Sequence[Prediction]") -> Iterator[str]:
    from codistill.reporting.text import text_table

    rows = [
        ("" if rank else p.image, name, f"{100 * share:.2f}")
        for p in found
        for rank, (name, share) in enumerate(p.classes)
    ]
    if rows:
        yield text_table(("image", "class", "probability %"), rows) + "\n"


def _json(found: "Sequence[Prediction]") -> Iterator[str]:
    answers = [
        {"image": p.image, "broken": p.broken}
        if p.broken
        else {
            "image": p.image,
            "classes": [{"class": name, "probability": share} for name, share in p.classes],
        }
        for p in found
    ]
    yield json.dumps(answers, indent=2, ensure_ascii=False) + "\n"


def _csv(found: "Sequence[Prediction]") -> Iterator[str]:
    from codistill.reporting.text import csv_table

    rows = [
        (p.image, rank, name, share)
        for p in found
        for rank, (name, share) in enumerate(p.classes, start=1)
    ]
    yield csv_table(("image", "rank", "class", "probability"), rows).replace("\r\n", "\n")


_FORMS = {"table": _table, "json": _json, "csv": _csv}
