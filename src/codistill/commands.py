"""What each command of the command line does. PyTorch is imported where it is needed."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from codistill.errors import InputError
from codistill.page_options import add_page_options, how_to_measure
from codistill.settings.arguments import parse_config
from codistill.settings.config import Config

if TYPE_CHECKING:
    from codistill.runs.run import Run


class Parser(argparse.ArgumentParser):
    """Answers bad arguments with one line, like everything else."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message} (see {self.prog} --help)")


def train(argv: list[str]) -> int:
    """`codistill train [--config RECIPE] [options] | --resume RUN`."""
    resumes = any(argument.partition("=")[0] == "--resume" for argument in argv)
    options = _resume_options(argv) if resumes else parse_config(argv, "codistill train")

    from codistill.runs.progress import train_with_display
    from codistill.runs.run import Run

    if isinstance(options, Config):
        return train_with_display(Run.create(options))
    return train_with_display(_open(options.resume, options))


def evaluate(argv: list[str]) -> int:
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
    _add_places(parser)
    options = parser.parse_args(argv)

    from codistill.runs.progress import print_metrics
    from codistill.training.evaluate import evaluate

    run = _open(options.run, options)
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


def report(argv: list[str]) -> int:
    """`codistill report RUN ... [--out DIR] [--no-analysis] [--images 3,17]`."""
    parser = Parser(
        prog="codistill report",
        description="Tables and a page on runs; runs that differ in the seed stand together.",
    )
    parser.add_argument("runs", nargs="+", help="folders of finished runs")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="also write report.html, a page that needs no other file; report.md; table.md, "
        "compared.md, runs.csv, curves.png",
    )
    add_page_options(parser)
    _add_places(parser)
    options = parser.parse_args(argv)
    how = how_to_measure(options)

    from codistill.reporting.page import refuse_places, require_page, write_page
    from codistill.reporting.tables import print_table, write_report
    from codistill.runs.finished import load_results

    results = load_results([Path(run) for run in options.runs])
    if options.out and how:
        refuse_places(results, how)
    print_table(results)
    if options.out:
        require_page()
        for file in write_report(results, Path(options.out)):
            print(file)
        for file in write_page(results, Path(options.out), how):
            print(file)
    return 0


def compare(argv: list[str]) -> int:
    """`codistill compare FILE [--out DIR] [--parallel N] [--launcher NAME] [--report-only]`."""
    parser = Parser(
        prog="codistill compare",
        description="Trains methods x networks x seeds, beside the networks alone, all else equal; "
        "goes on where it was; ends with what helped and what hurt.",
    )
    parser.add_argument("file", help="what is compared, in YAML; docs/compare.md has the format")
    parser.add_argument("--out", help="folder (default: runs/NAME of the file)")
    parser.add_argument("--parallel", type=int, metavar="N", help="runs at a time (default: 1)")
    parser.add_argument(
        "--launcher",
        choices=["processes", "slurm", "submitit-local"],
        default="processes",
        help="processes of this machine; jobs of a SLURM cluster; submitit's own processes",
    )
    parser.add_argument(
        "--report-only", action="store_true", help="of what is there; train nothing"
    )
    add_page_options(parser)
    options = parser.parse_args(argv)
    if options.parallel is not None and options.parallel < 1:
        raise InputError(f"--parallel is {options.parallel}: give 1 or more")

    how = how_to_measure(options)

    from codistill.compare import compare

    file = Path(options.file).expanduser()
    folder = Path(options.out).expanduser() if options.out else Path("runs", file.stem)
    parallel, launcher, report_only = options.parallel, options.launcher, options.report_only
    return compare(file, folder, parallel, launcher, report_only, how)


def reproduce(argv: list[str]) -> int:
    """`codistill reproduce [TABLE] [--scale short] [--seeds ...] [--dry-run]`."""
    from codistill.reproduce_command import reproduce

    parser = Parser(
        prog="codistill reproduce",
        description="A paper's table, as a comparison that is ready to run: codistill compare "
        "with the table's networks, methods and seeds, beside the published figures.",
    )
    return reproduce(argv, parser)


def inspect(argv: list[str]) -> int:
    """`codistill inspect [--config RECIPE] [options]`."""
    config = parse_config(argv, "codistill inspect")

    from rich.console import Console

    from codistill.analysis.cost.overview import additions
    from codistill.analysis.cost.summary import summarise_method
    from codistill.settings.build_data import describe_data
    from codistill.settings.build_method import build_method
    from codistill.summary_tables import render, render_additions

    num_classes, image_size = describe_data(config.data)
    method = build_method(config, num_classes, image_size)
    summary = summarise_method(method, image_size, config.batch_size, config.precision)
    console = Console()
    console.print(render(summary, config.networks()))
    console.print("", render_additions(additions(method.peers)), sep="\n")
    return 0


def list_(argv: list[str]) -> int:
    """`codistill list {methods,networks,data,recipes,tables}`."""
    from codistill.list_command import list_

    return list_(argv)


def data(argv: list[str]) -> int:
    """`codistill data check DIR`."""
    from codistill.data_commands import data

    return data(argv, Parser)


def kernels(argv: list[str]) -> int:
    """`codistill kernels [--again]`."""
    parser = Parser(
        prog="codistill kernels",
        description="Compiles kernels that make training on a CPU faster, for this machine and its "
        "PyTorch; needs a C++ compiler. Trainings use them from then on, unless --kernels false.",
    )
    parser.add_argument("--again", action="store_true", help="also where they are there")
    options = parser.parse_args(argv)

    from codistill.kernels.build import build, built

    there = built() is not None and not options.again
    if not there:
        print("compiling the kernels, which takes about ten seconds", flush=True)
    file = build(options.again)
    print(f"the kernels are {'there already' if there else 'built'}: {file}")
    return 0


def demo(argv: list[str]) -> int:
    """`codistill demo`."""
    parser = Parser(
        prog="codistill demo",
        description="Trains FFL and the same network alone on scikit-learn's handwritten digits.",
    )
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--epochs", type=int, default=30, help="of each run (default: 30)")
    parser.add_argument("--out", default="runs/demo", help="folder (default: runs/demo)")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        raise InputError(f"--seeds is {options.seeds}: give 1 or more")

    from codistill.demo import run_demo

    return run_demo(Path(options.out), options.seeds, options.epochs)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "evaluate": evaluate,
    "report": report,
    "compare": compare,
    "reproduce": reproduce,
    "inspect": inspect,
    "list": list_,
    "kernels": kernels,
    "data": data,
    "demo": demo,
}


def _resume_options(argv: list[str]) -> argparse.Namespace:
    """What `--resume RUN` may be given with: where the images and the device are now."""
    parser = Parser(prog="codistill train", allow_abbrev=False)
    parser.add_argument("--resume", metavar="RUN")
    _add_places(parser)
    parser.add_argument("--loggers", metavar="NAMES", help="others than before")
    options, rest = parser.parse_known_args(argv)
    if rest:
        raise InputError(
            f"--resume takes up a run as it was: leave out {' '.join(rest)}, "
            "or begin a new run with --out"
        )
    return options


def _open(path: str, options: argparse.Namespace) -> "Run":
    """A run, with the places that options tell."""
    from codistill.runs.run import Run

    root, workers = (getattr(options, f"data.{name}") for name in ("root", "workers"))
    return Run(path, options.device, root, workers, getattr(options, "loggers", None))


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="another than the run was made with")
    parser.add_argument("--data.root", metavar="ROOT", help="where the same images are now")
    parser.add_argument(
        "--data.workers", metavar="N", type=int, help="processes that read images now"
    )
