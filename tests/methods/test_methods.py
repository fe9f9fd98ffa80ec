"""The contract: what every method must do, whatever it is.

A new method is tested here as soon as it is listed in `codistill.names.METHODS`; one that is kept
elsewhere is among them.
"""

import functools
import inspect
import io
import itertools
from collections import Counter

import pytest
import torch
from toys import C, assert_same_tensors, can_share, make, sgd, steps, tiny, toy_batches, toy_split

from codistill import InputError, Method, Peers, TrainingState, epochs, evaluate, fit
from codistill.data.batches.in_memory import Augmentation, TrainBatches
from codistill.data.normalisation import Normalisation
from codistill.methods import method_class
from codistill.methods.losses import ce_loss, kd_loss
from codistill.names import METHODS

K = 3
OUTSIDE = "own_method:Relay"  # of examples/
every_method = pytest.mark.parametrize(
    ("name", "shared"),
    [(name, s) for name in [*METHODS, OUTSIDE] for s in (0, 2) if can_share(name, s)],
)


@pytest.mark.long
@every_method
def test_every_classifier_learns(name, shared):
    """Within 16 epochs, of which half are enough for most methods."""
    method = make(name, shared)
    train, test = toy_batches(method.views), {"test": toy_batches(seed=1)}
    for record in epochs(method, train, test, epochs=16, make_optimizer=sgd):
        top1 = {key: value for key, value in record.items() if "/top1/" in key}
        assert {f"test/top1/peer{k}" for k in range(K)} <= top1.keys()
        if min(top1.values()) > 90:
            return
    pytest.fail(f"after 16 epochs: {top1}")


@every_method
def test_every_weight_moves(name, shared):
    method = make(name, shared)
    before = {n: p.detach().clone() for n, p in method.named_parameters()}
    optimizers = method.optimizers(sgd)
    for group in (g for o in optimizers.values() for g in o.param_groups):
        group["weight_decay"] = 0.0  # which moves weights that no loss reaches
    method.begin_epoch(1, None)
    for batch in toy_batches(method.views):
        method.training_step(batch, optimizers, 1)
    still = {n for n, p in method.named_parameters() if torch.equal(p, before[n])}
    assert still == {n for n, p in method.named_parameters() if not p.requires_grad} & still
    assert any(p.requires_grad for p in method.parameters())


@every_method
def test_losses_are_finite_scalars(name, shared):
    method = make(name, shared)
    for losses in steps(method, toy_batches(method.views)):
        assert losses
        assert all(value.shape == () and value.isfinite() for value in losses.values())


@every_method
def test_every_divergence_of_logits_takes_the_option_to_standardise_them(name, shared, monkeypatch):
    module = inspect.getmodule(method_class(name))
    if name not in METHODS or not hasattr(module, "kd_loss"):
        return
    for on in (False, True):
        method, given = make(name, shared, standardise=on), []

        def spy(student, teacher, temperature, standardise=False, given=given):
            given += [standardise] if student.shape[-1] == C else []  # else they are no logits
            return kd_loss(student, teacher, temperature, standardise)

        monkeypatch.setattr(module, "kd_loss", spy)
        (losses,) = steps(method, toy_batches(method.views, n=1))
        assert set(given) <= {on}
        assert given or name == "mcl"
        assert all(value.isfinite() for value in losses.values())


@every_method
def test_the_same_seed_gives_the_same_weights(name, shared):
    first, second = make(name, shared, dropout=0.2), make(name, shared, dropout=0.2)
    for method in (first, second):
        torch.manual_seed(1)
        steps(method, toy_batches(method.views))
    assert_same_tensors(first.state_dict(), second.state_dict())


@every_method
def test_a_student_predicts_alone_as_in_company(name, shared):
    method = make(name, shared)
    steps(method, toy_batches(method.views))
    method.eval()
    (images,) = toy_batches(n=1)[0].views
    for k in range(K):
        assert torch.equal(method.peers.student(k)(images), method([images]).logits[k])


@every_method
def test_a_student_owns_its_weights_and_buffers(name, shared):
    method = make(name, shared)
    ours = {t.data_ptr() for t in method.state_dict().values()}
    for k in range(K):
        student = method.peers.student(k)
        assert ours.isdisjoint(t.data_ptr() for t in student.state_dict().values())


@every_method
def test_a_step_computes_every_stage_as_often_as_stated(name, shared):
    method = make(name, shared)
    counts = Counter()
    peers = method.peers
    forwards = method.forwards
    stages = {id(stage): method.views * forwards for stage in peers.trunk}
    stages |= {id(stage): forwards for branch in peers.branches for stage in branch}
    stages |= {id(head): forwards for head in peers.heads}
    for module in peers.modules():
        if id(module) in stages:
            module.register_forward_hook(lambda m, *_: counts.update([id(m)]))
    steps(method, toy_batches(method.views, n=1))
    assert counts == stages


@every_method
def test_evaluate_leaves_modes_and_random_numbers(name, shared):
    method = make(name, shared, dropout=0.2).train()
    method.peers.heads[1].eval()  # a frozen part
    modes = {n: m.training for n, m in method.named_modules()}
    rng = torch.get_rng_state()
    evaluate(method, toy_batches())
    assert {n: m.training for n, m in method.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), rng)


@every_method
def test_evaluate_moves_no_weight_and_no_statistic(name, shared):
    method = make(name, shared).train()
    before = {n: t.clone() for n, t in method.state_dict().items()}
    evaluate(method, toy_batches())
    assert_same_tensors(method.state_dict(), before)


@every_method
def test_evaluate_is_in_eval_mode(name, shared):
    method = make(name, shared, dropout=0.5).train()
    assert evaluate(method, toy_batches()) == evaluate(method, toy_batches())


@every_method
def test_a_state_dict_round_trip_changes_nothing(name, shared):
    first, second = make(name, shared), make(name, shared, seed=1)
    steps(first, toy_batches(first.views))
    second.load_state_dict(first.state_dict())
    assert_same_tensors(first.state_dict(), second.state_dict())
    assert evaluate(first, toy_batches()) == evaluate(second, toy_batches())


@every_method
def test_bf16_trains_float32_weights_with_finite_losses(name, shared):
    method = make(name, shared)
    batches = toy_batches(method.views)
    first, last = fit(method, batches, epochs=2, make_optimizer=sgd, precision="bf16")
    losses = [value for key, value in last.items() if key.startswith("loss/")]
    assert losses
    assert torch.tensor(losses).isfinite().all()
    assert last["loss/ce"] < first["loss/ce"]
    assert {p.dtype for p in method.parameters()} == {torch.float32}


@every_method
def test_every_loss_term_is_float32_under_bf16(name, shared):
    method = make(name, shared)
    (batch,) = toy_batches(method.views, n=1)
    method.begin_epoch(1, None)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.training_step(batch, method.optimizers(sgd), 1)
    assert {n: t.dtype for n, t in losses.items()} == dict.fromkeys(losses, torch.float32)


def test_bf16_runs_the_convolutions_in_bf16():
    method = make("independent", K=1)
    seen = set()
    method.peers.trunk[0][0].register_forward_hook(lambda *call: seen.add(call[-1].dtype))
    fit(method, toy_batches(), epochs=1, make_optimizer=sgd, precision="bf16")
    assert seen == {torch.bfloat16}


# Going on where a training was left


class Interrupted:
    """Batches that put down the state of a training before some of its steps."""

    def __init__(self, batches, training, steps):
        self.batches, self.training = batches, training
        self.saved = {step: io.BytesIO() for step in steps}

    def start_at(self, epoch, start):
        self.batches.start_at(epoch, start)

    def __iter__(self):
        for batch in self.batches:
            if saved := self.saved.get((self.training.epoch, self.training.step)):
                torch.save(self.training.state_dict(), saved)
            yield batch


def augmented_batches(views):
    split = toy_split(n=40)
    return TrainBatches(split, 8, Normalisation.of(split), Augmentation(pad=2), views, seed=3)


def halve(epoch):
    return 0.5**epoch


LEFT = [(1, 0), (1, 3), (0, 2)]
"""Epoch and step before which a training is left."""


@functools.lru_cache(maxsize=1)
def never_left(name, shared):
    """A method, what was saved while it was trained, and its history."""
    method = make(name, shared, dropout=0.3)
    training = TrainingState(method, sgd)
    batches = Interrupted(augmented_batches(method.views), training, LEFT)
    torch.manual_seed(7)
    return method, batches.saved, fit(method, batches, epochs=2, lr_at=halve, state=training)


@pytest.mark.parametrize(
    ("epoch", "step"),
    [pytest.param(*at, marks=[] if at == LEFT[1] else pytest.mark.long) for at in LEFT],
)
@every_method
def test_a_resumed_training_equals_one_that_was_never_left(name, shared, epoch, step):
    method, saved, whole = never_left(name, shared)
    other = make(name, shared, dropout=0.3, seed=5)
    resumed = TrainingState(other, sgd)
    saved[epoch, step].seek(0)
    resumed.load_state_dict(torch.load(saved[epoch, step], weights_only=True))
    batches = augmented_batches(method.views)
    rest = fit(other, batches, epochs=2, lr_at=halve, state=resumed)

    assert_same_tensors(method.state_dict(), other.state_dict())
    assert [without_times(r) for r in resumed.history] == [without_times(r) for r in whole]
    assert [r["epoch"] for r in rest] == list(range(epoch + 1, 3))


def without_times(record):
    return {k: v for k, v in record.items() if k not in ("seconds", "images_per_second")}


def test_a_list_of_batches_is_taken_up_in_the_middle_too():
    method = make("ffl")
    training = TrainingState(method, sgd)
    batches = toy_batches(n=5)
    saved = io.BytesIO()

    def saving():
        for batch in batches:
            if training.step == 3:
                torch.save(training.state_dict(), saved)
            yield batch

    fit(method, saving(), epochs=1, state=training)
    other = make("ffl", seed=1)
    resumed = TrainingState(other, sgd)
    saved.seek(0)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    fit(other, batches, epochs=1, state=resumed)
    assert_same_tensors(method.state_dict(), other.state_dict())


# Methods that are kept elsewhere


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Writes a module outside the package; returns its name."""
    numbers = itertools.count()

    def write(code):
        name = f"elsewhere_{tmp_path.name.replace('-', '_')}_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(code)
        return name

    monkeypatch.syspath_prepend(tmp_path)
    return write


OWN_METHOD = """
from codistill import Method
from codistill.methods.losses import ce_loss, kd_loss

class Own(Method):
    def losses(self, out, labels, epoch):
        return {"ce": ce_loss(out.logits, labels)}

class NoMethod:
    pass

def function():
    pass
"""


def test_a_method_kept_elsewhere_trains(elsewhere):
    method = method_class(elsewhere(OWN_METHOD) + ":Own")(Peers([tiny(), tiny()]))
    (record,) = fit(method, toy_batches(), epochs=1, make_optimizer=sgd)
    assert record["loss/ce"] > 0


@pytest.mark.parametrize("name", ["NoMethod", "function"])
def test_what_is_no_method_is_refused(elsewhere, name):
    path = f"{elsewhere(OWN_METHOD)}:{name}"
    with pytest.raises(InputError, match=f"{path} is no subclass of codistill.Method"):
        method_class(path)


def test_a_module_that_cannot_be_imported_is_refused_with_the_form_to_give():
    with pytest.raises(InputError, match="'no_such_module'.*give package.module:name.*PYTHONPATH"):
        method_class("no_such_module:Own")


def test_a_name_that_a_module_lacks_is_refused(elsewhere):
    module = elsewhere(OWN_METHOD)
    with pytest.raises(InputError, match=f"module '{module}' has no 'Other'"):
        method_class(f"{module}:Other")


def test_an_unknown_method_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'ffl'"):
        method_class("fll")


def test_a_method_may_ask_for_a_view_per_peer():
    class TwoViews(Method):
        views = 2

        def losses(self, out, labels, epoch):
            return {"ce": ce_loss(out.logits, labels)}

    method = TwoViews(Peers([tiny(), tiny()], shared=1))
    views = toy_batches(views=2, n=1)[0].views
    out = method(views)
    assert out.stages[0][0] is views[0]
    assert out.stages[1][0] is views[1]
