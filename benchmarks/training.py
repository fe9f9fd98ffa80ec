"""FFL's whole training loop (data, augmentation, step and log): ours against a plain one.

    python benchmarks/training.py --threads 1

"plain" is `plain.py`, a loop as in research scripts. "lean" is `lean.py`, the shortest loop with
our layout and batches; the time of ours above it is our overhead. A round is an epoch of a few
steps.
"""

import argparse
from collections.abc import Sequence
from functools import partial

from figures import Figure, arguments, report
from interleave import WARM_UP_STEPS, Contender, Seconds, interleave, rates, ratio, timed
from lean import LeanFFL
from ours import PLAIN_SGD, batches, build_method, epochs, random_split
from plain import PlainFFL, pil_batches


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=12)
    parser.add_argument("--depth", type=int, default=32, help="of the ResNets")
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2, help="in a round")
    parser.add_argument("--workers", type=int, default=0, help="of the plain loop's DataLoader")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    warm_up = -(-WARM_UP_STEPS // options.steps)
    seconds = interleave(contenders(options), options.rounds, warm_up)
    return [*rates(seconds, options.steps * options.batch), *ratios(seconds)]


def ratios(seconds: Seconds) -> list[Figure]:
    against_plain = partial(ratio, slow=seconds["plain"], kept=0.1)
    return [
        against_plain("ours fp32 against plain", fast=seconds["ours fp32"], target=">= 1.55"),
        against_plain("ours bf16 against plain", fast=seconds["ours bf16"], target=">= 2.5"),
        *(
            ratio(
                f"time of ours {p} against lean",
                seconds[f"ours {p}"],
                seconds[f"lean {p}"],
                target="<= 1.02",
            )
            for p in ("fp32", "bf16")
        ),
    ]


def contenders(options: argparse.Namespace) -> dict[str, Contender]:
    """The loops; each trains for ever, and a round is an epoch."""
    split = random_split(options.steps * options.batch)
    plain = PlainFFL(options.depth, 100, options.peers, PLAIN_SGD)
    images = pil_batches(split.images, split.labels, options.batch, options.workers)
    found = {"plain": timed(partial(plain.train_epoch, images), options.clock)}
    build = partial(build_method, "ffl", f"resnet{options.depth}", options.peers, 2, ramp_up=0)
    for precision in ("fp32", "bf16"):
        lean = LeanFFL(build(), split, options.batch, bf16=precision == "bf16")
        found[f"lean {precision}"] = timed(lean.train_epoch, options.clock)
        records = epochs(build(), batches(split, options.batch), precision)
        found[f"ours {precision}"] = timed(partial(next, records), options.clock)
    return found


if __name__ == "__main__":
    main()
