"""Augmented, normalised batches: our uint8 batches on the device against PIL images one by one.

    python benchmarks/augmentation.py --threads 1

Both pad by 4, crop at random, mirror at random, convert to float and normalise. The padding is the
mirrored image, as in the recipe of FFL's authors, and is slow in PIL. "zeros" pads with black, as
most other recipes do. "cut" is the part that the two do in different ways: pad, crop and mirror,
without the conversion to float.
"""

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch

from codistill.data.batches.in_memory import Augmentation, crop_and_flip
from figures import Figure, arguments, report
from interleave import interleave, rates, ratio, timed
from ours import batches, random_split
from plain import Image, pil_batches, transforms


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8, help="in a round")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    split = random_split(options.steps * options.batch)
    indices = torch.arange(len(split)).split(options.batch)
    cut = transforms.Compose(
        [
            transforms.RandomCrop(split.images.shape[1], padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
        ]
    )
    images = [Image.fromarray(image) for image in split.images.numpy()]
    rng = torch.Generator().manual_seed(0)

    def cut_batches() -> None:
        for index in indices:
            draws = Augmentation().draw(len(index), rng)
            crop_and_flip(split.images, index, *draws, 4, "reflect")

    images_and_labels = split.images, split.labels
    in_black = pil_batches(*images_and_labels, options.batch, padding_mode="constant")
    passes = {
        "PIL": partial(consume, pil_batches(*images_and_labels, options.batch)),
        "ours": partial(consume, batches(split, options.batch)),
        "PIL, zeros": partial(consume, in_black),
        "ours, zeros": partial(consume, batches(split, options.batch, pad_mode="zeros")),
        "PIL, cut": lambda: [cut(image) for image in images],
        "ours, cut": cut_batches,
    }
    contenders = {name: timed(work, options.clock) for name, work in passes.items()}
    seconds = interleave(contenders, options.rounds, warm_up=1)
    return [
        *rates(seconds, len(split)),
        ratio(
            "augmentation against PIL", seconds["PIL"], seconds["ours"], target=">= 15", kept=0.3
        ),
        ratio(
            "augmentation against PIL, zeros",
            seconds["PIL, zeros"],
            seconds["ours, zeros"],
            target=">= 15",
        ),
        ratio("the cut alone against PIL", seconds["PIL, cut"], seconds["ours, cut"]),
    ]


def consume(passes: Iterable[Any]) -> None:
    """Iterates over batches without keeping them, as a training does."""
    for _ in passes:
        pass


if __name__ == "__main__":
    main()
