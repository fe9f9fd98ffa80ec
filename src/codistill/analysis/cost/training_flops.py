"""FLOPs of a training step, and of a whole training."""

from collections.abc import Sequence

from codistill.analysis.cost.probing import probing, random_views, some_labels
from codistill.data.batch import Batch
from codistill.methods.flops import count_flops
from codistill.methods.method import Method
from codistill.methods.optimizers import MakeOptimizer
from codistill.runs.run import Run
from codistill.settings.build_method import make_optimizer, update_options
from codistill.training.record import Record
from codistill.training.state import TrainingState
from codistill.training.updates import UpdateOptions

_COUNTED = (2, 4, 6)  # images


def training_flops(run: Run, history: Sequence[Record]) -> float:
    """FLOPs of the training of a run: those of a step, for all images that it saw.

    Epochs with frozen stages and epochs without are each counted as their last one is.

    Args:
        run: the run. Its method stays as it was.
        history: a record per epoch, with the time and the images per second of its steps.
    """
    config, size = run.config, run.manifest.image_size
    batch_size = config.batch_size // config.accumulate
    thawed = config.freeze_epochs or 0
    total, end = 0.0, 0
    for epochs in (history[:thawed], history[thawed:]):
        end += len(epochs)
        if images := images_seen(epochs):
            step = step_flops(
                run.method,
                (size[0], size[1]),
                batch_size,
                end - 1,
                make_optimizer(config, run.method),
                update_options(config),
            )
            total += images * step / batch_size
    return total


def images_seen(history: Sequence[Record]) -> float:
    """The images of all steps, each as often as it was seen. Early versions have no "seconds"."""
    epochs = [e for e in history if "seconds" in e]
    return float(sum(e["images_per_second"] * e["seconds"] for e in epochs))


def step_flops(
    method: Method,
    image_size: tuple[int, int],
    images: int,
    epoch: int,
    make: MakeOptimizer | None = None,
    options: UpdateOptions | None = None,
) -> float:
    """FLOPs of a training step, as `methods.flops` counts them, without recomputation.

    These are forward and backward passes of all that a step computes, such as a teacher's forward
    pass or AFD's discriminators. A copy of the method makes the step, on random images. More than
    six are not computed: steps of 2, 4 and 6 tell what they cost, which is a + b B + c B² for B
    images, as some terms belong to the step and others to each pair of its images.

    Args:
        method: the method; it stays as it was.
        image_size: height and width of the images.
        images: images of the step, two or more.
        epoch: the epoch, from 0: what a method does may depend on it.
        make: makes the optimizers.
        options: how steps update the weights, such as the stages that are frozen.
    """

    def count(images: int) -> int:
        with probing(method) as probe:
            state = TrainingState(probe, make, options)
            state.epoch = epoch
            batch = Batch(random_views(probe, image_size, images), some_labels(probe, images))
            probe.begin_epoch(epoch, [batch] if probe.needs_held_out else None)
            state.begin()
            return count_flops(probe.training_step, batch, state.optimizers, epoch)[1]

    if images <= _COUNTED[-1]:
        return float(count(images))
    two, four, six = map(count, _COUNTED)
    c = (six - 2 * four + two) / 8
    b = (four - two) / 2 - 6 * c
    return two + b * (images - 2) + c * (images**2 - 4)
