"""Warnings about settings that are allowed, but probably not meant."""

from collections.abc import Iterator

from codistill.methods.method import Method
from codistill.runs.manifest import Process
from codistill.runs.run import Run
from codistill.settings.config import Config


def warnings_about(run: Run) -> Iterator[str]:
    """Warnings about a run: its data, its settings, and what changed since it was last trained."""
    yield from run.data().notes
    yield from remarks(run.method, run.config)
    if run.manifest.processes:
        last, now = run.manifest.processes[-1], Process.now(run.device, 0, 0)
        for key in ("packages", "processor", "threads", "device"):
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
