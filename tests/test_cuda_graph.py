"""Recorded steps train as others do; on a CPU with a recording that is taken again by Python."""

import copy

import pytest
import torch
from toys import can_share, make, sgd, toy_batches

from codistill import Batch, InputError, Training, fit
from codistill.cuda_graph import RecordedStep
from codistill.names import METHODS

every_method = pytest.mark.parametrize(
    ("name", "shared"), [(name, s) for name in METHODS for s in (0, 2) if can_share(name, s)]
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class PlayedBack:
    """A `Recording` by Python: it notes a step, and takes it again with every replay.

    As on a GPU nothing has happened when the recording is over, and results land in one place.
    """

    def __init__(self, training):
        self.training = training
        self.warmed = self.replayed = 0

    def warm_up(self, step):
        self.warmed += 1
        return step()

    def record(self, step):
        for optimizer in self.training.optimizers.values():
            for group in optimizer.param_groups:
                if "capturable" in group:
                    group["capturable"] = False  # Adam refuses it on a CPU
        before = copy.deepcopy(self.training.state_dict())
        self.places = step()
        self.training.load_state_dict(before)
        self.step = step
        return self.places

    def replay(self):
        self.replayed += 1
        for name, value in self.step().items():
            self.places[name].detach().copy_(value.detach())


class Refusing(PlayedBack):
    """A device that cannot record what a step does."""

    def record(self, step):
        raise RuntimeError("operation not permitted when stream is capturing")


def train(method, batches, epochs=2, recording=None):
    """The training, and one recording for each epoch."""
    torch.manual_seed(1)
    training, recordings = Training(method.train(), sgd), []
    for epoch in range(epochs):
        method.begin_epoch(epoch, None)
        training.set_lr(0.1**epoch)

        def step(batch, epoch=epoch):
            return method.training_step(batch, training.optimizers, epoch)

        if recording:
            recordings.append(recording(training))
            step = RecordedStep(step, training.optimizers.values(), recordings[-1])
        for batch in batches:
            training.record(step(batch))
        if epoch < epochs - 1:
            training.end_epoch({})
    return training, recordings


def batches_of(views, sizes):
    return [toy_batches(views, n=1, B=B, seed=i)[0] for i, B in enumerate(sizes)]


@every_method
def test_recorded_steps_train_to_the_same_bits(name, shared):
    batches = batches_of(make(name, shared).views, [8] * 6 + [5])
    expected, _ = train(make(name, shared, dropout=0.1), batches)
    found, recordings = train(make(name, shared, dropout=0.1), batches, recording=PlayedBack)
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert [(r.warmed, r.replayed) for r in recordings] == [(3, 3), (3, 3)]


def test_the_losses_of_a_recorded_step_are_the_callers_to_keep():
    training, _ = train(make("ffl"), batches_of(1, [8] * 8), epochs=1, recording=PlayedBack)
    assert all(len({float(x) for x in values}) == 8 for values in training.terms.values())


def test_a_batch_of_other_labels_is_not_replayed():
    first, *rest = batches_of(1, [8] * 6)
    last = Batch(rest[-1].views, torch.full((8, 4), 0.25))
    batches = [first, *rest, last]
    expected, _ = train(make("dml"), batches, epochs=1)
    found, (recording,) = train(make("dml"), batches, epochs=1, recording=PlayedBack)
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert recording.replayed == 3


def test_a_batch_that_is_changed_afterwards_changes_no_replay():
    """Batches may be made in the same memory again and again."""
    batch = batches_of(1, [8])[0]

    def reused():
        for new in batches_of(1, [8] * 6):
            batch.views[0].copy_(new.views[0])
            batch.labels.copy_(new.labels)
            yield batch

    expected, _ = train(make("dml"), batches_of(1, [8] * 6), epochs=1)
    found, _ = train(make("dml"), reused(), epochs=1, recording=PlayedBack)
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_adam_is_told_of_the_recording_alone():
    told = []
    training, _ = train(make("afd"), batches_of(1, [8] * 6), epochs=1)
    adam = training.optimizers["discriminators"]

    class Asking(PlayedBack):
        def warm_up(self, step):
            told.append(("warm up", adam.param_groups[0]["capturable"]))
            return {"ce": torch.zeros(())}

        def record(self, step):
            told.append(("record", adam.param_groups[0]["capturable"]))
            return {"ce": torch.zeros(())}

        def replay(self):
            told.append(("replay", adam.param_groups[0]["capturable"]))

    step = RecordedStep(lambda batch: {}, training.optimizers.values(), Asking(training))
    for batch in batches_of(1, [8] * 5):
        step(batch)
    assert told == [
        *[("warm up", False)] * 3,
        *[("record", True), ("replay", False), ("replay", False)],
    ]


def test_a_step_that_cannot_be_recorded_is_an_error_that_says_what_to_do():
    with pytest.raises(InputError, match=r"not permitted .*: train without cuda_graphs"):
        train(make("dml"), batches_of(1, [8] * 5), epochs=1, recording=Refusing)


def test_without_cuda_nothing_is_recorded():
    batches = batches_of(1, [8] * 6)
    expected = list(fit(make("dml"), batches, epochs=1, make_optimizer=sgd))
    found = list(fit(make("dml"), batches, epochs=1, make_optimizer=sgd, cuda_graphs=True))
    assert found[0]["loss/ce"] == expected[0]["loss/ce"]


@needs_cuda
@every_method
def test_a_recorded_training_on_a_gpu_is_that_of_its_steps(name, shared):
    def run(cuda_graphs):
        method = make(name, shared).cuda()
        batches = [
            Batch([view.cuda() for view in batch.views], batch.labels.cuda())
            for batch in batches_of(method.views, [32] * 8 + [5])
        ]
        training = Training(method, sgd)
        list(fit(method, batches, epochs=2, training=training, cuda_graphs=cuda_graphs))
        return training

    torch.testing.assert_close(run(True).state_dict()["method"], run(False).state_dict()["method"])


def test_compiled_stages_train_as_the_others():
    batches = batches_of(1, [8] * 3)
    expected, found = make("ffl"), make("ffl")
    found.peers.compile_stages(backend="aot_eager")
    for method in (expected, found):
        list(fit(method, batches, epochs=1, make_optimizer=sgd))
    assert list(found.state_dict()) == list(expected.state_dict())
    torch.testing.assert_close(found.state_dict(), expected.state_dict())
    student = found.peers.student(0)
    assert all(stage._compiled_call_impl is None for stage in student.stages)
