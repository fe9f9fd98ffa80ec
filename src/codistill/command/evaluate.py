"""`codistill evaluate`: measures every classifier of a run."""

from collections.abc import Iterator

from codistill.command.options import Parser, add_places, open_run
from codistill.errors import InputError


def main(argv: list[str]) -> int:
    """`codistill evaluate RUN`."""
    parser = Parser(
        prog="codistill evaluate",
        description="Measures every classifier of a run from its weights.",
    )
    parser.add_argument("run", help="folder of the run")
    parser.add_argument(
        "--weights",
        choices=["last", "best"],
        default="last",
        help="weights after the last epoch (default), or after the epoch with the best "
        "validation accuracy",
    )
    parser.add_argument(
        "--split",
        choices=["test", "val"],
        default="test",
        help="images to measure on (default: test)",
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="precision of the forward pass (default: fp32)",
    )
    add_places(parser)
    options = parser.parse_args(argv)

    from codistill.reporting.text import text_table
    from codistill.training.evaluate import evaluate

    run = open_run(options.run, options)
    run.load_weights(options.weights)
    sets = run.data().evaluate_on
    if options.split not in sets:
        raise InputError(f"{run.path} held no images out: it has no split {options.split!r}")
    metrics = evaluate(run.method, sets[options.split], options.precision)
    broken = len(run.data().broken.found)
    count = f"{sets[options.split].images - broken:,} images of {options.split}"
    count += f", without {broken:,} broken ones" if broken else ""
    title = f"{run.path}: {options.weights} weights, {count}"
    title += ", in bf16" if options.precision == "bf16" else ""
    print(
        title, text_table(("classifier", "top-1 %", "top-5 %", "NLL"), _rows(metrics)), sep="\n\n"
    )
    return 0


def _rows(metrics: dict[str, float]) -> Iterator[tuple[str, ...]]:
    for key, top1 in metrics.items():
        kind, _, name = key.partition("/")
        if kind == "top1":
            top5, nll = (metrics[f"{metric}/{name}"] for metric in ("top5", "nll"))
            yield name, f"{top1:.2f}", f"{top5:.2f}", f"{nll:.4f}"
