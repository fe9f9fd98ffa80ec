"""`codistill demo`: FFL and the same network alone, several seeds, on real handwritten digits."""

from itertools import count
from pathlib import Path
from typing import Any

from codistill.command.options import Parser, add_out, positive

# 898 images of 8x8 pixels need no more than a ResNet-8. One recipe for both; nothing was tuned on
# the test images.
_RECIPE: dict[str, Any] = {"network": "resnet8", "batch_size": 64, "lr": 0.05}
_SETTINGS: dict[str, dict[str, Any]] = {
    "ffl": {"peers": 2, "shared": 2},
    "independent": {"peers": 1},
}


def main(argv: list[str]) -> int:
    """`codistill demo`."""
    parser = Parser(
        prog="codistill demo",
        description="Trains FFL and the same network alone on scikit-learn's handwritten digits.",
    )
    for name, default, about in (
        ("seeds", 5, "runs of each"),
        ("epochs", 30, "epochs of each run"),
    ):
        parser.add_argument(
            f"--{name}",
            type=positive,
            metavar="N",
            default=default,
            help=f"{about} (default: {default})",
        )
    add_out(parser, "folder of the runs and the report (default: runs/demo)", "runs/demo")
    options = parser.parse_args(argv)
    return run_demo(Path(options.out), options.seeds, options.epochs)


def run_demo(folder: Path, seeds: int, epochs: int) -> int:
    """Trains both, `seeds` times each, then shows the table and draws the curves.

    Raises:
        MissingExtraError: a package is not installed that the end needs. Nothing is trained then.
    """
    from rich.console import Console

    from codistill.importing import optional
    from codistill.reporting.page.measure import MeasureOptions
    from codistill.reporting.page.write import require_page, write_page
    from codistill.reporting.tables import print_table, student_lines, write_report
    from codistill.runs.finished import load_results
    from codistill.runs.progress import follow
    from codistill.runs.run import Run
    from codistill.settings.config import Config
    from codistill.settings.data_config import DataConfig

    optional("sklearn", "codistill demo")
    require_page()
    folder = _unused(folder)
    console = Console(stderr=True)
    paths = []
    for seed in range(seeds):
        for method, setting in _SETTINGS.items():
            ramp_up = {"ramp_up": round(epochs * 80 / 300)} if method == "ffl" else {}
            config = Config(
                method={"name": method} | ramp_up,
                data=DataConfig(name="digits"),
                epochs=epochs,
                seed=seed,
                out=str(folder / f"{method}_seed{seed}"),
                **_RECIPE,
                **setting,
            )
            run = Run.create(config)
            follow(run, console, f"{method}, seed {seed}")
            paths.append(run.path)
    results = load_results(paths)
    print_table(results)
    print("independent, peer0: the network alone. Every peer is as large and as fast as it.")
    for file in [*write_report(results, folder), *write_page(results, folder, MeasureOptions())]:
        print(file)
    print(f"runs:    {folder}\n{student_lines(next(iter(results.values()))[0])}")
    return 0


def _unused(folder: Path) -> Path:
    """`folder`, or the first of `folder`-2, `folder`-3, ... that does not exist."""
    if not folder.exists():
        return folder
    return next(f for n in count(2) if not (f := folder.with_name(f"{folder.name}-{n}")).exists())
