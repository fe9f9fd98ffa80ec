"""What a training is about to do, in a few lines, before its first step."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from codistill.messages import counted, shorten

if TYPE_CHECKING:
    from codistill.runs.run import Run

_SPLITS = {"train": "to train on", "val": "held out", "test": "to test on"}


def header(run: "Run") -> Iterator[str]:
    """Lines on images, networks, method, length and place of a run."""
    for name, lines in (
        ("images", _images(run)),
        ("networks", _networks(run)),
        ("method", [str(run.config.method["name"])]),
        ("training", _training(run)),
        ("folder", [str(run.path)]),
    ):
        for i, line in enumerate(lines):
            yield f"{'' if i else name:<10}{line}"


def _images(run: "Run") -> Iterator[str]:
    from codistill.data.recognise import FORMS

    c, manifest = run.config.data, run.manifest
    what = f"{c.root} is {FORMS.get(c.name, c.name)}" if c.root else c.name
    total, classes = sum(manifest.images.values()), len(manifest.classes)
    yield f"{what}: {total:,} images, {classes:,} classes"
    height, width = manifest.image_size
    parts = [f"{n:,} {_SPLITS[split]}" for split, n in manifest.images.items()]
    yield f"{', '.join(parts)}, at {height}x{width}"


def _networks(run: "Run") -> Iterator[str]:
    parameters = run.manifest.parameters
    names = run.config.networks()
    for name in dict.fromkeys(names):
        peers = [f"peer{k}" for k, other in enumerate(names) if other == name]
        size = f"{parameters[peers[0]] / 1e6:.2f} M parameters"
        ships = ", the student" if name == run.config.student else ""
        yield f"{name}: {shorten(peers)}{ships}, {size}"


def _training(run: "Run") -> Iterator[str]:
    import torch

    from codistill import distributed

    c, steps = run.config, len(run.data().train)
    done = len(run.history())
    continues = f", {done} of them done" if done else ""
    yield (
        f"{counted(c.epochs, 'epoch')}{continues}, {counted(steps, 'step')} each, {c.batch_size} "
        "images a step, "
        f"{c.optimizer} at lr {c.lr}"
    )
    threads = torch.get_num_threads()
    device = f"{run.device.type}, {threads} thread{'s' if threads > 1 else ''}"
    if run.device.type == "cuda":
        device = torch.cuda.get_device_name(run.device)
    together = distributed.size()
    peers = f", {together // c.peers} for each peer" if run.placement == "peers" else ""
    processes = f", {together} processes together{peers}" if together > 1 else ""
    yield f"on {device}, in {c.precision}{processes}"
