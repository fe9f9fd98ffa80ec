"""What K peers cost compared with one network: step time, peak memory, and the estimate of both.

    python benchmarks/cost.py --threads 1 [--peers 1 2 4 8]

Time: steps of all sizes take turns. Memory: a separate process trains a few steps through `fit`;
its peak after the imports is subtracted, so that PyTorch itself does not count. The estimate is
that of `codistill inspect`. "independent" adds no modules of its own; FFL does. FFL's loop and the
plain one (`plain.py`) are compared as whole processes that hold 50,000 images.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from codistill.analysis.cost.summary import summarise_method
from figures import Figure, arguments, report
from interleave import WARM_UP_STEPS, interleave, ratio, timed
from ours import batches, build_method, epochs, random_split

TRUNK = 2  # stages shared


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=6)
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--peers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--images", type=int, default=50_000, help="of the data set")
    parser.add_argument("--skip", choices=["time", "memory"], help="measure the other only")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    figures = []
    if options.skip != "time":
        figures += measure_time(options)
    if options.skip != "memory":
        figures += measure_memory(options)
    return figures


def variants(options: argparse.Namespace) -> list[tuple[str, int, int]]:
    """Method, number of peers and shared stages; the network alone comes first."""
    several = [k for k in options.peers if k > 1]
    return [
        ("independent", 1, 0),
        *(("independent", k, shared) for shared in (0, TRUNK) for k in several),
        *(("ffl", k, TRUNK) for k in several[:1]),
    ]


def title(name: str, peers: int, shared: int) -> str:
    return f"{name} K={peers}" + (", trunk" if shared else "")


def measure_time(options: argparse.Namespace) -> list[Figure]:
    split = random_split(options.batch)
    rounds = {}
    for variant in variants(options):
        records = epochs(
            build_method(variant[0], options.network, *variant[1:]),
            batches(split, options.batch),
            options.precision,
        )
        rounds[title(*variant)] = timed(partial(next, records), options.clock)
    seconds = interleave(rounds, options.rounds, WARM_UP_STEPS)
    alone, *others = variants(options)
    return [
        ratio(
            f"time of {title(name, k, shared)} against {k} alone",
            seconds[title(name, k, shared)],
            [k * s for s in seconds[title(*alone)]],
            target="<= 1.05" if name == "independent" else "",
            kept=0.1,
            better="lower",
        )
        for name, k, shared in others
    ]


def measure_memory(options: argparse.Namespace) -> list[Figure]:
    figures, alone = [], 0.0
    for name, k, shared in variants(options):
        start, end = peaks(name, k, shared, options, images=4 * options.batch)
        used = end - start
        alone = alone or used
        what = title(name, k, shared)
        method = build_method(name, options.network, k, shared)
        summary = summarise_method(method, (32, 32), options.batch, options.precision)
        tensors = summary.memory.tensors / 2**20
        target = "<= 1.05" if name == "independent" and k > 1 else ""
        figures += [
            Figure(f"peak memory of {what}", used, unit="MiB"),
            Figure(f"memory of {what} against {k} alone", used / (k * alone), target=target),
            Figure(f"estimated tensors of {what} against measured memory", tensors / used),
        ]
    return figures + against_plain(options)


def against_plain(options: argparse.Namespace) -> list[Figure]:
    """The whole process of FFL's loop and that of the plain loop, data set included."""
    K = min(k for k in options.peers if k > 1)
    sizes = {name: peaks(name, K, TRUNK, options, options.images)[1] for name in ("plain", "ffl")}
    return [
        *(Figure(f"process of {name}, K={K}", size, unit="MiB") for name, size in sizes.items()),
        Figure(
            "process of ffl against plain",
            sizes["ffl"] / sizes["plain"],
            target="<= 1",
            kept=0.1,
            better="lower",
        ),
    ]


def peaks(
    name: str, peers: int, shared: int, options: argparse.Namespace, images: int
) -> tuple[float, float]:
    """Trains in a new process; returns its peak in MiB after the imports, and at the end."""
    settings = [name, options.network, peers, shared, options.batch, options.precision]
    child = Path(__file__).with_name("peak.py")
    done = subprocess.run(
        [sys.executable, str(child), *map(str, [*settings, options.threads, images])],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.args}:\n{done.stderr}")
    start, end = map(float, done.stdout.split())
    return start, end


if __name__ == "__main__":
    main()
