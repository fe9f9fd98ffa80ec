"""`codistill evaluate`: measures every classifier of a run."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from codistill.command.options import READING, Parser, add_places, add_reading, add_trust, open_run
from codistill.errors import InputError
from codistill.settings.data_config import DataConfig

if TYPE_CHECKING:
    from codistill.data.batches.in_memory import EvalBatches
    from codistill.data.batches.streamed import StreamedEvalBatches
    from codistill.runs.run import Run

    EvalSet = EvalBatches | StreamedEvalBatches


def main(argv: list[str]) -> int:
    """`codistill evaluate RUN [--data.root OTHER]`."""
    parser = Parser(
        prog="codistill evaluate",
        description="Measures every classifier of a run from its weights, on the run's images or "
        "on other ones with the same classes.",
    )
    parser.add_argument("run", help="folder of the run")
    parser.add_argument(
        "--weights",
        choices=["student", "last", "best"],
        default="student",
        help="weights of the epoch of student.safetensors (default), of the last epoch, or of the "
        "epoch with the best validation accuracy",
    )
    parser.add_argument(
        "--split",
        choices=["test", "val", "all"],
        default="test",
        help="images to measure on; all: every image at --data.root, whatever it is for "
        "(default: test)",
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="precision of the forward pass (default: fp32)",
    )
    add_places(parser)
    parser.add_argument(
        "--data",
        metavar="NAME",
        help="form of other images at --data.root, such as folder or csv (default: the run's)",
    )
    add_reading(parser)
    add_trust(parser)
    options = parser.parse_args(argv)

    from codistill.data.batches.streamed import StreamedEvalBatches
    from codistill.reporting.text import text_table
    from codistill.runs.finished import load_result
    from codistill.training.evaluate import evaluate

    run = open_run(options.run, options)
    student, of_student = load_result(run.path).scores.kept if run.finished() else ("", "last")
    weights = of_student if options.weights == "student" else options.weights
    run.load_weights(weights)
    batches, name = _images(run, options)
    metrics = evaluate(run.method, batches, options.precision)
    broken = len(batches.broken.found) if isinstance(batches, StreamedEvalBatches) else 0
    count = f"{batches.images - broken:,} images of {name}"
    count += f", without {broken:,} broken ones" if broken else ""
    title = f"{run.path}: {weights} weights, {count}"
    title += ", in bf16" if options.precision == "bf16" else ""
    caption = f"{student} is the network in student.safetensors." if weights == of_student else ""
    table = text_table(("classifier", "top-1 %", "top-5 %", "NLL"), _rows(metrics), caption)
    print(title, table, sep="\n\n")
    return 0


def _images(run: "Run", options: argparse.Namespace) -> "tuple[EvalSet, str]":
    """The images to measure on, and what to call them."""
    from codistill.messages import note
    from codistill.runs.other_images import ALL, other_images

    if options.root is not None:
        own = run.made_with.data
        given = {name: getattr(options, name) for name in READING}
        if options.data in (None, own.name):
            given = {n: getattr(own, n) if value is None else value for n, value in given.items()}
        other = other_images(
            run, DataConfig(options.data or own.name, options.root, **given), options.split
        )
        if other is not None:
            batches, lines = other
            for line in lines:
                note(line)
            return batches, options.root
    elif options.data is not None or any(getattr(options, name) is not None for name in READING):
        raise InputError("--data and its options are for other images: give --data.root too")
    sets = run.data().evaluate_on
    if options.split == ALL:
        raise InputError("--split all is for other images: give them by --data.root")
    if options.split not in sets:
        raise InputError(f"{run.path} held no images out: it has no split {options.split!r}")
    return sets[options.split], options.split


def _rows(metrics: dict[str, float]) -> Iterator[tuple[str, ...]]:
    for key, top1 in metrics.items():
        kind, _, name = key.partition("/")
        if kind == "top1":
            top5, nll = (metrics[f"{metric}/{name}"] for metric in ("top5", "nll"))
            yield name, f"{top1:.2f}", f"{top5:.2f}", f"{nll:.4f}"
