"""Parts of a batch, clipping, scaling, averages, frozen stages and schedules by the step."""

import functools
import math

import pytest
import torch
from torch import nn
from toys import C, assert_same_tensors, make, sgd, tiny, toy_batches

from codistill import Batch, Independent, InputError, Network, Peers, TrainingState, evaluate, fit
from codistill.methods import method_class
from codistill.methods.minimize import Updates, minimize, objective
from codistill.training.updates import UpdateOptions

plain_sgd = functools.partial(torch.optim.SGD, lr=0.05)


def trained(method, options, make_optimizer=sgd, epochs=1, batches=None, **settings):
    """The state of a training with these options."""
    state = TrainingState(method, make_optimizer, UpdateOptions(**options))
    fit(method, batches or toy_batches(), epochs=epochs, state=state, **settings)
    return state


def without_bn(name, **options):
    """A method of double precision whose images do not depend on each other."""
    torch.manual_seed(0)
    networks = [
        Network(
            [nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU()), nn.Conv2d(4, 8, 2)],
            [4, 8],
            [2, 4],
            C,
        )
        for _ in range(2)
    ]
    return method_class(name)(Peers(networks), **options).double()


def in_double(batches):
    return [Batch([view.double() for view in b.views], b.labels) for b in batches]


@pytest.mark.parametrize("parts", [2, 3, 32])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(parts):
    batches = in_double(toy_batches(n=3, B=10))
    whole, divided = without_bn("dml"), without_bn("dml")
    trained(whole, {}, batches=batches)
    state = trained(divided, {"accumulate": parts}, batches=batches)
    for name, x in whole.state_dict().items():
        torch.testing.assert_close(divided.state_dict()[name], x, rtol=0, atol=1e-12)
    (record,) = state.history
    (expected,) = trained(without_bn("dml"), {}, batches=batches).history
    for term in ("loss/ce", "loss/kd"):
        assert record[term] == pytest.approx(expected[term], abs=1e-12)


def test_parts_have_two_images_at_least():
    batch = toy_batches(n=1, B=7)[0]
    assert [len(part.labels) for part, _ in batch.parts(100)] == [3, 2, 2]
    assert sum(share for _, share in batch.parts(100)) == pytest.approx(1)
    assert batch.parts(1) == [(batch, 1.0)]
    views, labels = zip(*((p.views[0], p.labels) for p, _ in batch.parts(2)), strict=True)
    assert torch.equal(torch.cat(views), batch.views[0])
    assert torch.equal(torch.cat(labels), batch.labels)


class Counted(torch.optim.SGD):
    """SGD that counts its steps."""

    taken = 0

    def step(self, closure=None):
        self.taken += 1
        return super().step(closure)


def test_every_optimizer_of_an_alternating_method_steps_once_per_batch():
    method = make("afd", K=2, shared=0)
    state = TrainingState(method, functools.partial(Counted, lr=0.05), UpdateOptions(accumulate=4))
    before = {n: x.clone() for n, x in method.state_dict().items()}
    fit(method, toy_batches(n=3), epochs=1, state=state)
    assert state.optimizers["main"].taken == 3
    for name in ("discriminators", "extractors"):
        (steps,) = {int(s["step"]) for s in state.optimizers[name].state.values()}
        assert steps == 3
    moved = [n for n, x in method.state_dict().items() if not torch.equal(x, before[n])]
    assert any(n.startswith("discriminators") for n in moved)


def test_parts_of_one_optimizer_do_not_leak_into_another():
    """The first of two optimizers of one weight takes its own gradient alone."""
    w = nn.Parameter(torch.zeros(2))
    first, second = torch.optim.SGD([w], lr=1.0), torch.optim.SGD([w], lr=1.0)
    updates = Updates()
    for last in (False, True):
        with updates.active(share=0.5, last=last):
            minimize({"a": (w * torch.tensor([1.0, 0.0])).sum()}, first)
            minimize({"b": (w * torch.tensor([0.0, 1.0])).sum()}, second)
    assert w.tolist() == [-1, -1]


def test_what_another_optimizer_s_losses_leave_in_a_weight_is_not_added_to_its_parts():
    """As the adversarial loss of AFD leaves gradients in the discriminators."""
    v, w = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    first, second = torch.optim.SGD([v], lr=1.0), torch.optim.SGD([w], lr=1.0)
    updates = Updates()
    for last in (False, True):
        with updates.active(share=0.5, last=last):
            minimize({"a": v.sum()}, first)
            minimize({"b": (100 * v + w).sum()}, second)
    assert (v.item(), w.item()) == (-1, -1)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_gradients_are_clipped_by_the_norm_of_all_weights(accumulate, precision):
    method = make("dml")
    before = [p.detach().clone() for p in method.parameters()]
    options = {"clip_norm": 0.01, "accumulate": accumulate}
    at_once = functools.partial(torch.optim.SGD, lr=1.0)
    trained(method, options, at_once, batches=toy_batches(n=1), precision=precision)
    moved = [p.detach() - b for p, b in zip(method.parameters(), before, strict=True)]
    assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_short_gradients_stay_as_they_are():
    plain, clipped = make("dml"), make("dml")
    trained(plain, {})
    trained(clipped, {"clip_norm": 1e6})
    assert_same_tensors(plain.state_dict(), clipped.state_dict())


def test_fp16_learns_and_scales_its_losses():
    method = make("ffl", K=2)
    state = trained(method, {}, epochs=8, precision="fp16")
    assert evaluate(method, toy_batches(seed=1))["top1/peer0"] > 80
    assert state.state_dict()["scales"]["main"]["scale"] == 2**16
    assert trained(make("ffl", K=2), {}).state_dict()["scales"] == {}


def test_a_step_that_overflows_is_left_out_and_halves_the_scale():
    w = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([w], lr=1.0)
    updates = Updates()
    with updates.active(scaled=True):
        minimize({"a": w.sum() * 1e38}, optimizer)  # times 65,536 it is infinite
        assert w.item() == 1
        assert updates.state_dict({"main": optimizer})["main"]["scale"] == 2**15
        minimize({"a": w.sum() * 0.5}, optimizer)
    assert w.item() == 0.5


def test_each_optimizer_has_a_scale_of_its_own_which_is_kept():
    state = trained(make("afd", K=2, shared=0), {}, precision="fp16")
    saved = state.state_dict()
    assert saved["scales"].keys() == {"main", "discriminators", "extractors"}
    saved["scales"]["main"]["scale"] = 32.0
    other = TrainingState(make("afd", K=2, shared=0), sgd)
    other.load_state_dict(saved)
    scales = {name: of["scale"] for name, of in other.state_dict()["scales"].items()}
    assert scales == {"main": 32.0, "discriminators": 2.0**16, "extractors": 2.0**16}


def test_the_average_is_the_formula_and_is_what_is_evaluated():
    decay, method, weights = 0.6, make("dml"), []

    class Watched(list):
        def __iter__(self):
            for batch in super().__iter__():
                yield batch
                weights.append({n: x.clone() for n, x in method.state_dict().items()})

    state = TrainingState(method, sgd, UpdateOptions(ema=decay))
    (record,) = fit(
        method, Watched(toy_batches(n=6)), {"test": toy_batches(seed=1)}, epochs=1, state=state
    )
    found = state.result.state_dict()
    for name, last in method.state_dict().items():
        if not last.is_floating_point():
            assert torch.equal(found[name], last)
            continue
        average = weights[0][name].double()
        for n, w in enumerate(weights[1:], 1):
            d = min(decay, (1 + n) / (10 + n))
            average = d * average + (1 - d) * w[name].double()
        torch.testing.assert_close(found[name].double(), average, rtol=1e-5, atol=1e-6)
    expected = evaluate(state.result, toy_batches(seed=1))
    assert {k: record[f"test/{k}"] for k in expected} == expected
    assert evaluate(method, toy_batches(seed=1)) != expected
    assert {n: kept.peers for n, kept in state.result.students().items()} == {
        n: state.result.peers for n in method.students()
    }


@pytest.mark.parametrize("shared", [0, 2])
def test_frozen_stages_stay_as_they_are_until_they_are_let_go(shared):
    method = make("dml", K=2, shared=shared)
    names = [
        n
        for n in method.state_dict()
        if n.startswith(
            ("peers.trunk.0.", "peers.branches.0.0.") if not shared else "peers.trunk.0."
        )
    ]
    assert names
    before = {n: x.clone() for n, x in method.state_dict().items()}
    options = {"freeze": 1, "freeze_epochs": 2}
    state = trained(method, options, epochs=2)
    after = method.state_dict()
    assert all(torch.equal(after[n], before[n]) for n in names)
    assert not torch.equal(after["peers.heads.0.2.weight"], before["peers.heads.0.2.weight"])
    fit(method, toy_batches(), epochs=3, state=state)
    learned = [n for n in names if not torch.equal(method.state_dict()[n], before[n])]
    assert learned == names


def test_stages_of_networks_are_frozen_beside_a_trunk():
    method = make("dml", K=2, shared=1)
    before = {n: x.clone() for n, x in method.state_dict().items()}
    trained(method, {"freeze": 2})
    moved = {n for n, x in method.state_dict().items() if not torch.equal(x, before[n])}
    assert not [n for n in moved if n.startswith(("peers.trunk", "peers.branches.0.0"))]
    assert [n for n in moved if n.startswith("peers.branches.1.1")]


def test_not_all_stages_can_be_frozen():
    with pytest.raises(InputError, match="freeze is 3, but a network has 3 stages: give at most 2"):
        TrainingState(make("dml"), sgd, UpdateOptions(freeze=3))
    with pytest.raises(InputError, match="nothing is frozen: give freeze"):
        UpdateOptions(freeze_epochs=3)


ALL = {"clip_norm": 0.5, "accumulate": 2, "ema": 0.9, "freeze": 1, "freeze_epochs": 1}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["dml", "ffl", "afd", "pcl", "okddip"])
def test_all_of_them_resume_to_the_same_bits(name, precision):
    adamw = functools.partial(torch.optim.AdamW, lr=1e-3)
    by_step = {
        "lr_at": lambda epoch: 1 / (1 + epoch),
        "lr_every_step": True,
        "precision": precision,
    }

    def new():
        method = make(name, shared=0, dropout=0.2)
        return method, TrainingState(method, adamw, UpdateOptions(**ALL))

    batches = toy_batches(views=make(name).views, n=4, B=8)
    sets = {"test": toy_batches(seed=1)}
    torch.manual_seed(1)
    method, state = new()
    saved = []

    class Watched(list):
        def __iter__(self):
            for i, batch in enumerate(super().__iter__()):
                if state.epoch == 1 and i == 2:
                    saved.append(__import__("copy").deepcopy(state.state_dict()))
                yield batch

    torch.manual_seed(1)
    history = fit(method, Watched(batches), sets, epochs=3, state=state, **by_step)
    other, resumed = new()
    resumed.load_state_dict(saved[0])
    fit(other, batches, sets, epochs=3, state=resumed, **by_step)
    assert_same_tensors(method.state_dict(), other.state_dict())
    assert_same_tensors(state.result.state_dict(), resumed.result.state_dict())
    timed = ("seconds", "images_per_second")
    assert [{k: v for k, v in r.items() if k not in timed} for r in resumed.history] == [
        {k: v for k, v in r.items() if k not in timed} for r in history
    ]


def test_the_learning_rate_changes_with_every_step():
    rates, method = [], Independent(Peers([tiny()]))
    state = TrainingState(method, plain_sgd)

    class Watched(list):
        def __iter__(self):
            for batch in super().__iter__():
                yield batch
                rates.append(state.optimizers["main"].param_groups[0]["lr"])

    asked = {"lr_at": lambda epoch: 1 - epoch / 2, "lr_every_step": True}
    records = fit(method, Watched(toy_batches(n=4)), epochs=2, state=state, **asked)
    assert rates == pytest.approx([0.05 * (1 - i / 8) for i in range(8)])
    assert [record["lr"] for record in records] == pytest.approx([rates[3], rates[7]])


def test_what_changes_with_every_step_needs_steps_and_no_recording():
    asked = {"epochs": 1, "lr_at": lambda epoch: 1.0, "lr_every_step": True}
    with pytest.raises(InputError, match="give batches that have a length"):
        fit(make("dml"), (b for b in toy_batches()), **asked)
    with pytest.raises(InputError, match="leave out cuda_graphs or lr_every_step"):
        fit(make("dml"), toy_batches(), cuda_graphs=True, **asked)
    state = TrainingState(make("dml"))
    with pytest.raises(InputError, match="its optimizers and options"):
        fit(state.method, toy_batches(), epochs=1, state=state, options=UpdateOptions(ema=0.9))
    assert not math.isnan(fit(make("dml"), toy_batches(), epochs=1)[0]["lr"])


class Engine:
    """What another library does with a loss: it scales it, and steps when a batch is complete."""

    def __init__(self):
        self.complete = True
        self.steps = []

    def backward(self, loss):
        (4 * loss).backward()

    def step(self, optimizer):
        for group in optimizer.param_groups:
            for w in group["params"]:
                w.grad /= 4
        optimizer.step()
        self.steps.append(optimizer)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_engine_of_another_library_makes_the_updates_of_a_method_that_alternates(parts):
    ours, theirs, batches = without_bn("afd"), without_bn("afd"), in_double(toy_batches(n=2, B=8))
    for module in (*ours.modules(), *theirs.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    engine = Engine()
    updates = Updates(backward=engine.backward, step=engine.step)
    optimizers = [m.optimizers(plain_sgd) for m in (ours, theirs)]
    for batch in batches:
        pieces = [p for p, _ in batch.parts(parts)]
        for i, piece in enumerate(pieces):
            with updates.active(share=1 / parts, last=i == parts - 1):
                theirs.training_step(piece, optimizers[1], epoch=0)
        own = Updates()
        for i, piece in enumerate(pieces):
            with own.active(share=1 / parts, last=i == parts - 1):
                ours.training_step(piece, optimizers[0], epoch=0)
    assert engine.steps == [*optimizers[1].values()] * 2
    assert_same_tensors(ours.state_dict(), theirs.state_dict())


def test_optimizers_that_do_not_clear_their_gradients_keep_parts_apart():
    """Accelerate's clear and step in the last part of a batch only."""

    class Lazy(torch.optim.SGD):
        def zero_grad(self, set_to_none=True):
            pass

    w = nn.Parameter(torch.zeros(1))
    first, second = Lazy([w], lr=1.0), Lazy([w], lr=1.0)
    updates = Updates()
    for last in (False, True):
        with updates.active(last=last):
            minimize({"a": w.sum()}, first)
            minimize({"b": 10 * w.sum()}, second)
    assert w.item() == -22


def test_the_objective_leaves_measurements_out():
    losses = {"a": torch.tensor(1.0), "measure/b": torch.tensor(10.0), "c": torch.tensor(2.0)}
    assert objective(losses) == 3
