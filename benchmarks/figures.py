"""The figures of a benchmark: numbers with their spread, as text and as JSON."""

import argparse
import datetime
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: the measured quantity.
        value: the median, if there are several values.
        low, high: the quartiles, if there are several values.
        best: the fastest of all, or the ratio of the fastest.
        unit: "times" for ratios.
        target: the bound to meet, such as ">= 1.55" or "<= 5", or empty.
        kept: the tolerance within which `bench.py` compares it with an earlier one, such as 0.1;
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    best: float | None = None
    unit: str = "times"
    target: str = ""
    kept: float = 0.0
    better: str = "higher"

    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        if not self.target:
            return None
        sign, bound = self.target.split()
        return self.value >= float(bound) if sign == ">=" else self.value <= float(bound)

    def __str__(self) -> str:
        line = f"{self.name:<44} {show(self.value):>8}"
        if self.low is not None and self.high is not None:
            line += f"  {show(self.low)} to {show(self.high)}"
        if self.best is not None:
            line += f"  best {show(self.best)}"
        line += f"  {self.unit}"
        if self.target:
            line += f"  (target {self.target}: {'met' if self.met() else 'missed'})"
        return line


def show(value: float) -> str:
    """A number, rounded to the digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def arguments(description: str, rounds: int) -> argparse.ArgumentParser:
    """Adds the options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--rounds", type=int, default=rounds, help="that are counted")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="see interleave.py"
    )
    parser.add_argument("--json", type=Path, help="a file to write the figures to")
    return parser


def report(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], list[Figure]],
    argv: Sequence[str] | None,
) -> list[Figure]:
    """Runs a benchmark: reads its options, prints its figures and writes them."""
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    figures = measure(options)
    settings = {name: str(value) for name, value in vars(options).items() if name != "json"}
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    for figure in figures:
        print(figure)
    if options.json:
        about = {"machine": machine(), "options": settings}
        write_json(options.json, about | {"figures": [asdict(f) for f in figures]})
    return figures


def machine() -> dict[str, str]:
    """The machine and the versions of this measurement."""
    cpu = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = (line.split(":", 1) for line in lines if ":" in line)
        facts = {key.strip(): value.strip() for key, value in fields}
        cpu = f"{facts.get('model name')}, family {facts.get('cpu family')}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "gpu": gpu,
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
