"""Recorded steps train as others do; on a CPU with a recording that is taken again by Python."""

import copy

import pytest
import torch
from toys import can_share, make, sgd, tiny, toy_batches

from codistill import Batch, InputError, Peers, TrainingState, fit
from codistill.names import METHODS
from codistill.runs.run import Run
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig
from codistill.training.cuda_graph import RecordedStep

every_method = pytest.mark.parametrize(
    ("name", "shared"), [(name, s) for name in METHODS for s in (0, 2) if can_share(name, s)]
)
compiling = pytest.mark.filterwarnings(  # warnings of PyTorch's own
    "ignore:The .grad attribute of a Tensor:UserWarning",
    "ignore:.*torch.jit.script_method:DeprecationWarning",
)
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
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
    """A device that cannot record what a step does; nor, then, end the recording."""

    def record(self, step):
        try:
            raise RuntimeError("not permitted when stream is capturing\nand much more")
        finally:
            raise RuntimeError("failed due to a previous error")


def train(method, batches, epochs=2, recording=None):
    """The training, and one recording for each epoch."""
    torch.manual_seed(1)
    training, recordings = TrainingState(method.train(), sgd), []
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


@pytest.mark.long
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


def test_the_measurements_of_recorded_steps_are_those_of_steps_taken_as_ever():
    batches = batches_of(1, [8] * 6)
    expected, _ = train(make("afd"), batches, epochs=1)
    found, _ = train(make("afd"), batches, epochs=1, recording=PlayedBack)
    measured = [name for name in expected.terms if name.startswith("measure/")]
    assert len(measured) == 6
    for name in measured:
        assert torch.equal(torch.stack(found.terms[name]), torch.stack(expected.terms[name]))


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
    message = r"\(not permitted when stream is capturing\): train without cuda_graphs"
    with pytest.raises(InputError, match=message):
        train(make("dml"), batches_of(1, [8] * 5), epochs=1, recording=Refusing)


def test_without_cuda_nothing_is_recorded():
    batches = batches_of(1, [8] * 6)
    expected = fit(make("dml"), batches, epochs=1, make_optimizer=sgd)
    found = fit(make("dml"), batches, epochs=1, make_optimizer=sgd, cuda_graphs=True)
    assert found[0]["loss/ce"] == expected[0]["loss/ce"]


def trained_on(device, cuda_graphs, name="ffl", shared=2):
    """The state of a method after two epochs of `fit`."""
    method = make(name, shared).to(device)
    batches = [
        Batch([view.to(device) for view in batch.views], batch.labels.to(device))
        for batch in batches_of(method.views, [32] * 8 + [5])
    ]
    fit(method, batches, epochs=2, make_optimizer=sgd, cuda_graphs=cuda_graphs)
    return method.state_dict()


@needs_cuda
@every_method
def test_a_recorded_training_on_a_gpu_is_that_of_its_steps(name, shared):
    recorded, taken = (trained_on("cuda", graphs, name, shared) for graphs in (True, False))
    torch.testing.assert_close(recorded, taken)


@needs_two
def test_a_recorded_training_may_be_on_another_gpu_than_the_current_one():
    recorded, taken = (trained_on("cuda:1", graphs) for graphs in (True, False))
    torch.testing.assert_close(recorded, taken)


@pytest.mark.long
@compiling
def test_compiled_stages_train_as_the_others():
    batches = batches_of(1, [8] * 3)
    expected, found = make("ffl"), make("ffl")
    found.peers.compile_stages(backend="aot_eager")
    for method in (expected, found):
        fit(method, batches, epochs=1, make_optimizer=sgd)
    assert list(found.state_dict()) == list(expected.state_dict())
    torch.testing.assert_close(found.state_dict(), expected.state_dict())
    assert not compiled(found.peers.student(0).stages)


def compiled(stages):
    return [stage for stage in stages if stage._compiled_call_impl is not None]


@pytest.mark.long
@compiling
def test_all_stages_are_compiled_however_many_there_are():
    """PyTorch gives up on a function after 8 versions; that of a stage is one for all stages."""
    seen = []

    def note(graph, inputs):
        seen.append(graph)
        return graph.forward

    torch._dynamo.reset()
    network = tiny(width=1, strides=(1,) * 5)
    peers = Peers([network, network.clone()])
    peers.compile_stages(backend=note)
    for size in (4, 6):
        peers([torch.randn(size, 3, 4, 4)])
    assert len(seen) == 2 * 5  # for one size, and for any other; both peers in one


class Stopped(Exception):
    pass


@compiling
def test_a_run_is_compiled_when_it_is_trained_and_not_to_be_looked_at(tmp_path):
    settings = {"network": "resnet8", "epochs": 1, "compile": True, "loggers": "none"}
    data = DataConfig(name="digits", val_fraction=0.0)
    run = Run.create(Config(data=data, out=str(tmp_path / "run"), **settings))
    stages = [stage for branch in run.method.peers.branches for stage in branch]
    assert not compiled(stages)

    def stop(batches):
        raise Stopped

    with pytest.raises(Stopped):
        next(run.train(stop))
    assert compiled(stages) == stages
