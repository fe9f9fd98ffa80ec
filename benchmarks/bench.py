"""A short version of every benchmark, compared with stored figures: `make bench`.

    python benchmarks/bench.py [--store] [--only training ...] [--without libraries]

All run on one thread and by the processor's clock, which a busy neighbour disturbs least. The exit
status is 1 if a figure is worse than the stored one by more than its tolerance (`Figure.kept`: 10 %
for most ratios of time). Stored ratios belong to one kind of machine: store your own first on
another one. The full versions are the files beside this one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import machine, show, write_json

HERE = Path(__file__).parent
SHORT = {
    "training": ["--rounds=6"],
    "libraries": ["--rounds=3"],
    "evaluation": ["--rounds=6"],
    "augmentation": ["--rounds=15"],
    "cost": ["--peers", "1", "2", "--rounds=4"],
    "operations": [],
    "start": ["--rounds=2"],
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", action="store_true", help="keep these figures to compare with")
    parser.add_argument("--only", nargs="+", choices=SHORT, default=list(SHORT))
    parser.add_argument("--without", nargs="+", choices=SHORT, default=[])
    parser.add_argument("--file", type=Path, default=HERE / "ratios.json")
    options = parser.parse_args(argv)
    names = [name for name in options.only if name not in options.without]
    if options.store:
        for name in names:
            store(options.file, run(name, SHORT[name]))
        return 0
    stored = read(options.file)
    figures = {k: v for name in names for k, v in run(name, SHORT[name]).items()}
    for key in ("cpu", "capability", "torch"):
        if stored["machine"][key] != machine()[key]:
            print(f"\nstored with another {key}: {stored['machine'][key]}; here {machine()[key]}")
    print()
    worse = [name for name in figures if is_worse(name, figures[name], stored["figures"])]
    print(f"worse than stored: {', '.join(worse) or 'none'}")
    return bool(worse)


def store(file: Path, figures: dict[str, Any]) -> None:
    """Adds figures to the stored ones, with the machine and the date."""
    earlier = read(file)["figures"] if file.exists() else {}
    write_json(file, {"machine": machine(), "figures": earlier | figures})
    print(f"stored in {file}")


def run(name: str, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Runs a benchmark, shows what it prints, and returns the compared figures by name."""
    print(f"\n{name} {' '.join(settings)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "figures.json")
        command = [
            sys.executable,
            str(HERE / f"{name}.py"),
            *settings,
            "--clock=cpu",
            f"--json={file}",
        ]
        subprocess.run(command, check=True)
        figures = read(file)["figures"]
    return {f"{name}: {f['name']}": f for f in figures if f["kept"]}


def is_worse(name: str, figure: dict[str, Any], stored: dict[str, Any]) -> bool:
    """Prints how a figure compares with the stored one; returns whether it is worse."""
    if name not in stored:
        print(f"{name:<60} {show(figure['value']):>8}  not stored")
        return False
    now, then, kept = figure["value"], stored[name]["value"], figure["kept"]
    higher = figure["better"] == "higher"
    worse = now < then * (1 - kept) if higher else now > then * (1 + kept)
    about = f"stored {show(then)}, tolerance {kept:.0%}" + (": worse" if worse else "")
    print(f"{name:<60} {show(now):>8}  {about}")
    return worse


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


if __name__ == "__main__":
    sys.exit(main())
