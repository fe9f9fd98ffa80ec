"""The loop waits for the device nowhere, and asks it for few operations."""

import pytest
import torch
from dispatched import Dispatched
from toys import C, can_share, make, sgd, toy_batches, toy_split

from codistill import Batch, Peers, TrainingState, build_network, evaluate, fit
from codistill.data.batches.in_memory import Augmentation, EvalBatches, TrainBatches
from codistill.data.batches.mixing import MixedBatches, Mixing
from codistill.data.normalisation import Normalisation
from codistill.methods import FFL
from codistill.names import METHODS
from codistill.training.device import deterministic

every_method = pytest.mark.parametrize(
    ("name", "shared"), [(name, s) for name in METHODS for s in (0, 2) if can_share(name, s)]
)
WAITS_OF_A_LOOK = 2  # the copy of what is not finite, and the question whether anything is
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def adam_steps(training):
    """Adam's counts of its steps, which live on the host beside a device, or in its kernel."""
    states = [s for o in training.optimizers.values() for s in o.state.values()]
    return [state["step"] for state in states if "step" in state]


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: float(x[0]),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x.numpy(),
        lambda x: torch.tensor([1.0, 2.0]),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: (x > 0).nonzero(),
        lambda x: torch.where(x > 0),
        lambda x: torch.equal(x, x),
        lambda x: x.unique(),
        lambda x: [n for n in range(3) if x[n] > 0],
    ],
)
def test_what_waits_for_the_device_is_seen(wait):
    with Dispatched() as seen:
        wait(torch.ones(3))
    assert seen.waits


def test_what_does_not_wait_is_left_alone():
    x = torch.ones(3, 3, requires_grad=True)
    with Dispatched() as seen:
        torch.where(x > 0, x, 0.0).float().to(torch.float64).to(x.device, non_blocking=True)
        x[torch.arange(2), 1].sum().backward()
    assert not seen.waits


@every_method
def test_a_step_waits_nowhere(name, shared):
    method = make(name, shared).train()
    training = TrainingState(method, sgd)
    method.begin_epoch(1, None)
    first, second = toy_batches(method.views, n=2)
    training.record(method.training_step(first, training.optimizers, 1))
    with Dispatched(host=adam_steps(training)) as seen:
        training.record(method.training_step(second, training.optimizers, 1))
    assert not seen.waits


@pytest.mark.long
@pytest.mark.parametrize("mixing", [None, Mixing(0.1, 0.5, 0.5, torch.ones(C))])
def test_an_epoch_waits_at_its_look_every_50_steps_and_at_its_end(mixing):
    def waits(steps):
        split = toy_split(n=4 * steps)
        batches = TrainBatches(split, 4, Normalisation.of(split), Augmentation(pad=1))
        if mixing:
            batches = MixedBatches(batches, C, mixing)
        training = TrainingState(make("dml"), sgd)
        with Dispatched() as seen:
            fit(training.method, batches, epochs=1, state=training)
        return len(seen.waits)

    short, longer, two_looks = waits(3), waits(49), waits(101)
    assert short == longer
    assert two_looks == longer + 2 * WAITS_OF_A_LOOK


def test_an_evaluation_waits_at_its_end_alone():
    def waits(images):
        split = toy_split(n=images)
        method = make("ffl")
        evaluate(method, EvalBatches(split, 4, Normalisation.of(split)))
        batches = EvalBatches(split, 4, Normalisation.of(split))
        with Dispatched() as seen:
            evaluate(method, batches)
        return len(seen.waits)

    assert waits(4) == waits(40)


@pytest.mark.parametrize(("precision", "most"), [("fp32", 455), ("bf16", 570)])
def test_a_step_of_ffl_on_resnet32_asks_for_few_operations(precision, most):
    """152 layers forward and backward, 46 counts of batches, 10 of SGD; the rest are losses."""
    method = FFL(Peers([build_network("resnet32", 100) for _ in range(2)], shared=2)).train()
    training = TrainingState(method)
    batch = Batch([torch.randn(4, 3, 32, 32)], torch.arange(4))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        method.training_step(batch, training.optimizers, 0)  # in which momentum begins
        with Dispatched() as seen:
            training.record(method.training_step(batch, training.optimizers, 0))
    assert seen.kernels <= most


@needs_cuda
@every_method
def test_a_step_on_a_gpu_waits_nowhere(name, shared):
    method = make(name, shared).cuda().train()
    training = TrainingState(method, sgd)
    split = toy_split(n=96).to(torch.device("cuda"))
    batches = list(TrainBatches(split, 32, Normalisation.of(split), views=method.views))
    method.begin_epoch(1, None)
    training.record(method.training_step(batches[0], training.optimizers, 1))  # loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            training.record(method.training_step(batch, training.optimizers, 1))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@pytest.mark.parametrize("rand_augment", [0, 9])
def test_an_epoch_on_a_gpu_waits_in_no_step(rand_augment):
    """Deterministic, as the command trains: some kernels that PyTorch then takes do wait."""
    split = toy_split(n=160).to(torch.device("cuda"))
    augmentation = Augmentation(pad=1, rand_augment=rand_augment)
    batches = TrainBatches(split, 32, Normalisation.of(split), augmentation)
    method = make("ffl").cuda()
    training = TrainingState(method, sgd)

    def watched():
        for step, batch in enumerate(batches):
            yield batch
            torch.cuda.set_sync_debug_mode("error" if step < len(batches) - 2 else "default")

    with deterministic(torch.device("cuda")):
        fit(method, watched(), epochs=1, state=training)
