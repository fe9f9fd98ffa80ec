"""Warnings about settings that are allowed, but probably not meant."""

from collections.abc import Iterator, Sequence

from codistill.methods.method import Method
from codistill.names import DATASETS, NETWORKS
from codistill.networks.cutting.published import published_mean
from codistill.runs.manifest import Process
from codistill.runs.run import Run
from codistill.settings.config import Config
from codistill.settings.fitting import fitting_batch_size

_FEW = 50  # held-out images
_LARGE = 64  # pixels, for a network that is made for 32
_HIGH = 0.02  # learning rate of SGD for published weights
_HIGH_OF_OTHERS = 0.001  # of AdamW and the like
_NEAR = 10  # of 255, between two means


def warnings_about(run: Run) -> Iterator[str]:
    """Warnings about a run: its data, its settings, and what changed since it was last trained."""
    yield from run.data().notes
    yield from remarks(run.method, run.config)
    yield from _on_numbers(run)
    if run.manifest.processes:
        last, now = run.manifest.processes[-1], Process.now(run.device, 0, 0)
        for key in ("packages", "processor", "threads", "device", "processes"):
            before, after = getattr(last, key), getattr(now, key)
            if before != after:
                yield (
                    f"{key} changed since this run was last trained, from {before} to {after}: it "
                    "continues, but its last bits may differ"
                )


def remarks(method: Method, config: Config) -> Iterator[str]:
    """Warnings about the settings of a method and of its run."""
    epochs = config.epochs
    yield from method.remarks(epochs)
    late = [m for m in config.milestones if m >= epochs]
    if late and config.schedule == "step":
        yield f"milestones {late} lie beyond the {epochs} epochs: the learning rate stays high"
    if config.optimizer != "sgd" and config.lr >= 0.05:
        yield (
            f"lr is {config.lr}, which is usual for sgd: for {config.optimizer} it is 0.001 or less"
        )
    if config.warmup_epochs >= epochs:
        yield f"warmup_epochs is {config.warmup_epochs}: the {epochs} epochs end before it does"
    yield from _on_networks(config)


def _on_numbers(run: Run) -> Iterator[str]:
    """Warnings about numbers of images and steps."""
    c, images = run.config, run.manifest.images
    held_out, steps = images.get("val", 0), len(run.data().train)
    if 0 < held_out < _FEW:
        yield (
            f"{held_out} images are held out, and each is {100 / held_out:.1f} points of accuracy: "
            "they hardly tell which peer is best; --data.val_fraction holds out more"
        )
    if steps == 1:
        yield (
            f"an epoch is one step: batch_size {c.batch_size} takes all {images['train']:,} images "
            f"to train on; give --batch_size {fitting_batch_size(images['train'] // 2)}, or 0"
        )
    known, found = DATASETS[c.data.name].images, sum(images.values())
    if known and c.data.images_per_class is None and found != known:
        yield f"{c.data.name} has {known:,} images as published, and {found:,} here"


def _on_networks(config: Config) -> Iterator[str]:
    """Warnings about networks that do not suit the images or the learning rate."""
    names, size = dict.fromkeys(config.networks()), config.data.image_size
    small = [name for name in names if name in NETWORKS]
    if small and size and size > _LARGE:
        yield (
            f"{', '.join(small)}: made for images of 32x32. At {size}x{size} a step takes "
            f"{(size / 32) ** 2:,.0f} times as long: give a network of timm, or a smaller "
            "--data.image_size"
        )
    if not config.pretrained:
        return
    high = _HIGH if config.optimizer == "sgd" else _HIGH_OF_OTHERS
    if config.lr > high:
        yield (
            f"lr {config.lr} is for networks that start from nothing: published weights are "
            f"usually trained on at {high} or less by {config.optimizer}"
        )
    for name in names:
        wanted, mean = published_mean(name), config.data.mean
        if wanted and mean and max(abs(a - b) for a, b in zip(wanted, mean, strict=True)) > _NEAR:
            yield (
                f"{name}: its published weights want images of mean {_rounded(wanted)}, and these "
                f"are normalised by {_rounded(mean)}: give --data.mean and --data.std"
            )


def _rounded(numbers: Sequence[float]) -> str:
    return " ".join(f"{x:.1f}" for x in numbers)
