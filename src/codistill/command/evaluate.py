"""`codistill evaluate`: measures every classifier of a run."""

from codistill.command.options import Parser, add_places, open_run
from codistill.errors import InputError


def main(argv: list[str]) -> int:
    """`codistill evaluate RUN`."""
    parser = Parser(
        prog="codistill evaluate",
        description="How good every classifier of a run is, measured now from its weights.",
    )
    parser.add_argument("run", help="the folder of a finished run")
    parser.add_argument(
        "--weights",
        choices=["last", "best"],
        default="last",
        help="those after the last epoch, or after the one that validation chose",
    )
    parser.add_argument("--split", choices=["test", "val"], default="test")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    add_places(parser)
    options = parser.parse_args(argv)

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
    print_metrics(title, metrics)
    return 0


def print_metrics(title: str, metrics: dict[str, float]) -> None:
    """A table of what `evaluate` returned."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("classifier", title=Text(title), title_justify="left", box=SIMPLE_HEAD)
    for column in ("top-1 %", "top-5 %", "NLL"):
        table.add_column(column, justify="right")
    for key in metrics:
        kind, _, name = key.partition("/")
        if kind == "top1":
            top1, top5, nll = (metrics[f"{m}/{name}"] for m in ("top1", "top5", "nll"))
            table.add_row(name, f"{top1:.2f}", f"{top5:.2f}", f"{nll:.4f}")
    Console().print(table)
