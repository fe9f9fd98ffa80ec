"""What is allowed in a run, but probably not meant."""

from collections.abc import Iterator

from codistill.methods.losses import sigmoid_ramp_up
from codistill.methods.method import Method
from codistill.runs.manifest import Process
from codistill.runs.run import Run
from codistill.settings.config import Config


def warnings_about(run: Run) -> Iterator[str]:
    """What is allowed, but probably not meant; and what changed since a run was last trained."""
    yield from run.data().notes
    yield from remarks(run.method, run.config)
    if run.manifest.processes:
        last, now = run.manifest.processes[-1], Process.now(run.device, 0, 0)
        for key in ("packages", "processor", "threads", "device"):
            before, after = getattr(last, key), getattr(now, key)
            if before != after:
                yield (
                    f"{key} changed since this run was last trained, from {before} to {after}: it "
                    "goes on, but its last bits may differ"
                )


def remarks(method: Method, config: Config) -> Iterator[str]:
    """What settings allow, but probably do not mean."""
    ramp_up, epochs = getattr(method, "ramp_up", 0), config.epochs
    weight = sigmoid_ramp_up(epochs - 1, ramp_up)
    if weight < 0.99:
        yield (
            f"method.ramp_up is {ramp_up} epochs, and the run has {epochs}: distillation reaches "
            f"{weight:.0%} of its weight. The usual 80 of 300 would be "
            f"--method.ramp_up {max(1, round(epochs * 80 / 300))}"
        )
    if getattr(method, "burn_in", 0) >= epochs:
        yield (
            f"method.burn_in is {method.burn_in}, and the run has {epochs} epochs: the peers "
            "never learn from each other"
        )
    adversarial = getattr(method, "adversarial_milestones", ())
    if adversarial and getattr(method, "forwards", 1) > 1 and min(adversarial) >= epochs:
        yield (
            f"method.adversarial_milestones {list(adversarial)} lie beyond the {epochs} epochs: "
            "the adversarial learning rate stays high"
        )
    late = [m for m in config.milestones if m >= epochs]
    if late and config.schedule == "step":
        yield f"milestones {late} lie beyond the {epochs} epochs: the learning rate stays high"
    if config.warmup_epochs >= epochs:
        yield f"warmup_epochs is {config.warmup_epochs}: the {epochs} epochs end before it does"
