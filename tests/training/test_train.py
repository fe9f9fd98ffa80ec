"""The training loop, the evaluation, and what they refuse."""

import copy
import functools
import inspect
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from toys import C, assert_same_tensors, echo, make, sgd, tiny, toy_batches

import codistill
from codistill import Batch, InputError, Method, Peers, TrainingState, evaluate, fit, minimize
from codistill.methods import Independent
from codistill.methods.losses import ce_loss
from codistill.training.state import NonFiniteError

# What fit yields


def test_a_record_has_the_documented_keys():
    sets = {"val": toy_batches(n=1), "test": toy_batches(n=1)}
    (record,) = fit(make("ffl", K=2), toy_batches(n=2), sets, epochs=1, make_optimizer=sgd)
    classifiers = ["peer0", "peer1", "ensemble", "fused"]
    assert record.keys() == {
        "epoch",
        "lr",
        "images_per_second",
        "seconds",
        *(f"loss/{term}" for term in ("ce", "ekd", "fkd")),
        *(
            f"{s}/{metric}/{name}"
            for s in sets
            for metric in ("top1", "top5", "nll")
            for name in classifiers
        ),
        *(f"{s}/kl/peer{i}/peer{1 - i}" for s in sets for i in (0, 1)),
        *(f"{s}/disagreement/peer0/peer1" for s in sets),
    }


def test_a_record_holds_plain_numbers():
    (record,) = fit(make("dml"), toy_batches(n=1), {"test": toy_batches(n=1)}, epochs=1)
    assert {type(value) for value in record.values()} <= {int, float}


def test_epochs_count_from_1_to_the_last():
    assert [r["epoch"] for r in fit(make("dml"), toy_batches(n=1), epochs=3)] == [1, 2, 3]


def test_history_is_what_was_yielded():
    method = make("dml")
    training = TrainingState(method, sgd)
    records = fit(method, toy_batches(n=1), epochs=2, state=training)
    assert training.history == records


def test_fit_trains_as_a_statement_what_the_loop_over_epochs_trains():
    torch.manual_seed(0)
    method, looped = make("dml"), make("dml")
    looped.load_state_dict(method.state_dict())
    sets = {"test": toy_batches(n=1)}
    fit(method, toy_batches(n=2), sets, epochs=2, make_optimizer=sgd)
    loop = codistill.epochs(looped, toy_batches(n=2), sets, epochs=2, make_optimizer=sgd)
    before = copy.deepcopy(looped.state_dict())
    assert next(loop)["epoch"] == 1
    assert not torch.equal(before["peers.heads.0.2.weight"], looped.peers.heads[0][2].weight)
    assert [record["epoch"] for record in loop] == [2]
    assert_same_tensors(method.state_dict(), looped.state_dict())


def test_a_run_takes_the_same_arguments_in_one_go_and_epoch_by_epoch():
    one, other = map(inspect.signature, (fit, codistill.epochs))
    assert one.parameters == other.parameters


def test_a_loss_is_the_mean_over_the_steps_of_the_epoch():
    seen = []

    class Spy(Independent):
        def losses(self, out, labels, epoch):
            terms = super().losses(out, labels, epoch)
            seen.append(terms["ce"].item())
            return terms

    (record,) = fit(Spy(Peers([tiny()])), toy_batches(n=3), epochs=1)
    assert record["loss/ce"] == pytest.approx(sum(seen) / 3, rel=1e-6)


class Measures(Independent):
    """Measures its accuracy beside its loss, and something that would have a gradient."""

    def losses(self, out, labels, epoch):
        told = 100 * (out.logits[0].argmax(dim=1) == labels).float().mean()
        return super().losses(out, labels, epoch) | {
            "measure/told": told,
            "measure/size": 1e3 * out.logits.square().mean(),
        }


def measures(method=Measures):
    torch.manual_seed(0)
    return method(Peers([tiny(), tiny()]))


def test_a_measurement_is_recorded_under_its_own_name_as_the_mean_over_steps():
    records = []
    method = measures()
    training = TrainingState(method, sgd)
    for batch in toy_batches(n=3):
        told = method.training_step(batch, training.optimizers, 0)
        records.append(told["measure/told"].item())
    (record,) = fit(measures(), toy_batches(n=3), epochs=1, make_optimizer=sgd)
    assert record["measure/told"] == pytest.approx(sum(records) / 3, rel=1e-6)
    assert {key for key in record if "told" in key or "size" in key} == {
        "measure/told",
        "measure/size",
    }


def test_no_optimizer_goes_down_a_measurement():
    without, with_some = measures(Independent), measures()
    records = [
        *fit(without, toy_batches(n=3), epochs=1, make_optimizer=sgd),
        *fit(with_some, toy_batches(n=3), epochs=1, make_optimizer=sgd),
    ]
    assert_same_tensors(with_some.state_dict(), without.state_dict())
    assert records[0]["loss/ce"] == records[1]["loss/ce"]


def test_measurements_of_an_interrupted_epoch_are_counted_in():
    class Stop(Exception):
        pass

    def interrupted():
        yield from toy_batches(n=5)[:2]
        raise Stop

    (whole,) = fit(measures(), toy_batches(n=5), epochs=1, make_optimizer=sgd)
    begun = TrainingState(measures(), sgd)
    with pytest.raises(Stop):
        fit(begun.method, interrupted(), epochs=1, state=begun)
    resumed = TrainingState(measures(), sgd)
    resumed.load_state_dict(begun.state_dict())
    (record,) = fit(resumed.method, toy_batches(n=5), epochs=1, state=resumed)
    for key in ("measure/told", "measure/size", "loss/ce"):
        assert record[key] == whole[key]


def test_each_set_is_evaluated_on_its_own_batches():
    method = make("dml", K=2)
    sets = {"val": toy_batches(n=1, seed=1), "test": toy_batches(n=1, seed=2)}
    (record,) = fit(method, toy_batches(n=1), sets, epochs=1, make_optimizer=sgd)
    for name, batches in sets.items():
        for key, value in evaluate(method, batches).items():
            assert record[f"{name}/{key}"] == value


def test_the_caller_sees_a_method_in_train_mode_again_in_the_next_epoch():
    modes = []

    class Spy(Independent):
        def losses(self, out, labels, epoch):
            modes.append(self.peers.training)
            return super().losses(out, labels, epoch)

    method = Spy(Peers([tiny()]))
    for _ in codistill.epochs(method, toy_batches(n=1), {"test": toy_batches(n=1)}, epochs=3):
        method.eval()
    assert modes == [True] * 3


def test_losses_are_told_the_epoch_from_0():
    epochs = []

    class Spy(Independent):
        def losses(self, out, labels, epoch):
            epochs.append(epoch)
            return super().losses(out, labels, epoch)

    fit(Spy(Peers([tiny()])), toy_batches(n=2), epochs=2)
    assert epochs == [0, 0, 1, 1]


# Learning rates and optimizers


def test_lr_at_multiplies_the_learning_rate_of_an_epoch():
    method = make("ffl")
    records = fit(
        method,
        toy_batches(n=1),
        epochs=4,
        make_optimizer=sgd,
        lr_at=lambda epoch: 0.1 ** (epoch // 2),
    )
    assert [r["lr"] for r in records] == pytest.approx([0.05, 0.05, 0.005, 0.005], rel=1e-12)


def test_lr_at_reaches_every_group():
    training = TrainingState(make("ffl"), sgd)
    training.set_lr(0.5)
    training.set_lr(0.1)
    groups = training.optimizers["main"].param_groups
    assert [g["lr"] for g in groups] == pytest.approx([0.005, 0.005], rel=1e-12)


def test_a_learning_rate_of_0_moves_no_weight():
    method = make("ffl")
    before = {n: p.detach().clone() for n, p in method.named_parameters()}
    fit(method, toy_batches(n=1), epochs=1, lr_at=lambda epoch: 0.0)
    assert_same_tensors({n: p.detach() for n, p in method.named_parameters()}, before)


def test_the_default_is_the_sgd_of_the_paper():
    (optimizer,) = TrainingState(make("dml")).optimizers.values()
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (
        0.1,
        0.9,
        True,
        1e-4,
    )


def test_a_training_of_another_method_is_refused():
    with pytest.raises(InputError, match="give that method"):
        fit(make("dml"), toy_batches(n=1), epochs=1, state=TrainingState(make("dml"), sgd))


def test_a_training_and_an_optimizer_are_refused_together():
    method = make("dml")
    with pytest.raises(InputError, match="a method, its optimizers and options"):
        fit(
            method,
            toy_batches(n=1),
            epochs=1,
            state=TrainingState(method, sgd),
            make_optimizer=sgd,
        )


# What batches may be


def test_anything_that_can_be_iterated_over_is_trained_on():
    class Anything:
        def __iter__(self):
            yield from toy_batches(n=2)

    listed, iterated = make("dml"), make("dml")
    fit(listed, toy_batches(n=2), epochs=2, make_optimizer=sgd)
    fit(iterated, Anything(), epochs=2, make_optimizer=sgd)
    assert_same_tensors(listed.state_dict(), iterated.state_dict())


def test_start_at_is_called_before_every_epoch():
    calls = []

    class Batches(list):
        def start_at(self, epoch, start):
            calls.append((epoch, start))

    fit(make("dml"), Batches(toy_batches(n=1)), epochs=3)
    assert calls == [(0, 0), (1, 0), (2, 0)]


def test_a_batch_is_asked_for_when_the_step_before_is_counted():
    method = make("dml")
    training = TrainingState(method, sgd)
    counted = []

    def batches():
        for batch in toy_batches(n=3):
            counted.append(training.step)
            yield batch

    fit(method, batches(), epochs=1, state=training)
    assert counted == [0, 1, 2]


def test_no_batch_to_train_on_is_refused():
    with pytest.raises(InputError, match="not one batch"):
        fit(make("dml"), [], epochs=1)


# Losses that are not finite


class Fails(Method):
    """Has a second loss term with one bad value, in the n-th step of all."""

    def __init__(self, peers, n, value=math.nan):
        super().__init__(peers)
        self.countdown, self.value = n, value

    def losses(self, out, labels, epoch):
        self.countdown -= 1
        bad = self.value if self.countdown == -1 else 1.0
        return {"ce": ce_loss(out.logits, labels), "extra": out.logits.pow(2).mean() * bad}


@pytest.mark.parametrize(
    ("n", "epoch", "step", "noticed"),
    [
        (0, 0, 0, 50),
        (3, 0, 3, 50),
        (49, 0, 49, 50),
        (50, 0, 50, 60),
        (57, 0, 57, 60),
        (62, 1, 2, 50),
        (115, 1, 55, 60),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named_with_epoch_and_step(n, epoch, step, noticed, value):
    torch.manual_seed(0)
    method = Fails(Peers([tiny(width=1)]), n, value)
    training = TrainingState(method, functools.partial(torch.optim.SGD, lr=0.01))
    batches = toy_batches(n=60, B=4, size=4)
    where = f"in epoch {epoch + 1}, step {step + 1}:"  # as people count
    message = rf"loss term 'extra' is not finite \({value}\) {where}"
    with pytest.raises(NonFiniteError, match=message):
        fit(method, batches, epochs=2, state=training)
    assert (training.epoch, training.step) == (epoch, noticed)


def test_a_measurement_that_is_not_finite_is_named():
    training = TrainingState(make("dml"), sgd)
    training.record({"ce": torch.ones(()), "measure/told": torch.tensor(math.nan)})
    with pytest.raises(NonFiniteError, match=r"^measurement 'measure/told' is not finite \(nan\)"):
        training.check_losses()


def test_a_weight_that_is_not_finite_is_named():
    method = make("dml")
    training = TrainingState(method, sgd)
    training.check_weights()
    with torch.no_grad():
        method.peers.heads[1][2].bias[0] = math.inf
    with pytest.raises(NonFiniteError, match=r"weight 'peers.heads.1.2.bias' is not finite"):
        training.check_weights()


# The evaluation

LOGITS = torch.zeros(5, 12)
LOGITS[torch.arange(5), [0, 1, 2, 3, 4]] = 3.0  # first guesses
LOGITS[:, 7:11] = torch.tensor([1.0, 0.9, 0.8, 0.7])  # guesses 2 to 5
LABELS = torch.tensor([0, 1, 10, 11, 7])  # right, right, fifth guess, none of five, second guess


def echoed(*sizes):
    """LOGITS as images, in batches of the given sizes."""
    images, labels = LOGITS.view(5, 3, 2, 2).split(sizes), LABELS.split(sizes)
    return [Batch([x], y) for x, y in zip(images, labels, strict=True)]


@pytest.mark.parametrize("sizes", [(5,), (3, 2), (1, 3, 1)])
def test_metrics_are_means_over_images_whatever_the_batches(sizes):
    metrics = evaluate(Independent(Peers([echo()])), echoed(*sizes))
    total = math.exp(3) + sum(math.exp(x) for x in (1.0, 0.9, 0.8, 0.7)) + 7
    nll = sum(math.log(total) - x for x in (3, 3, 0.7, 0, 1.0)) / 5
    assert metrics == {
        "top1/peer0": pytest.approx(40.0),
        "top5/peer0": pytest.approx(80.0),
        "nll/peer0": pytest.approx(nll, rel=1e-6),
    }


def test_every_classifier_is_evaluated():
    metrics = evaluate(make("ffl", K=2), toy_batches(n=1))
    names = ["peer0", "peer1", "ensemble", "fused"]
    evaluated = {f"{m}/{n}" for m in ("top1", "top5", "nll") for n in names}
    assert {key for key in metrics if key.count("/") == 1} == evaluated


class Shifted(Independent):
    """Two peers: the pixels, and the same with other ones of some classes."""

    def forward(self, views):
        out = super().forward(views)
        out.logits[1, :, 3:6] += torch.tensor([4.0, -1.0, 0.5])
        return out


@pytest.mark.parametrize("sizes", [(5,), (3, 2)])
def test_peers_are_compared_by_divergence_and_by_first_guess(sizes):
    metrics = evaluate(Shifted(Peers([echo(), echo()])), echoed(*sizes))
    other = LOGITS.clone()
    other[:, 3:6] += torch.tensor([4.0, -1.0, 0.5])
    p, q = (
        np.exp(x - np.log(np.exp(x).sum(1, keepdims=True))) for x in (LOGITS.numpy(), other.numpy())
    )
    assert {key: value for key, value in metrics.items() if key.count("/") == 2} == {
        "kl/peer0/peer1": pytest.approx((p * np.log(p / q)).sum() / 5, rel=1e-5),
        "kl/peer1/peer0": pytest.approx((q * np.log(q / p)).sum() / 5, rel=1e-5),
        "disagreement/peer0/peer1": pytest.approx(80.0),  # all but that which 3 was the guess of
    }


def test_peers_that_say_the_same_do_not_differ():
    metrics = evaluate(Independent(Peers([echo(), echo(), echo()])), echoed(5))
    differences = {key: value for key, value in metrics.items() if key.count("/") == 2}
    assert len(differences) == 3 * 2 + 3
    assert set(differences.values()) == {0.0}


def test_a_divergence_that_is_not_finite_is_not_hidden():
    class Broken(Independent):
        def forward(self, views):
            out = super().forward(views)
            out.logits[1] = math.nan
            return out

    metrics = evaluate(Broken(Peers([echo(), echo()])), echoed(5))
    assert math.isnan(metrics["kl/peer0/peer1"])


def test_with_fewer_than_five_classes_top5_is_always_right():
    assert C < 5
    assert evaluate(make("independent", K=1), toy_batches(n=1))["top5/peer0"] == 100.0


def test_modes_are_restored_when_the_evaluation_fails():
    method = make("dml").train()

    def failing():
        yield toy_batches(n=1)[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        evaluate(method, failing())
    assert {m.training for m in method.modules()} == {True}


def test_evaluation_leaves_no_graph():
    method = make("dml")
    kept = []

    class Spy(Independent):
        def forward(self, views):
            out = super().forward(views)
            kept.append(out.logits.requires_grad)
            return out

    evaluate(Spy(method.peers), toy_batches(n=1))
    assert kept == [False]


def test_no_image_to_evaluate_on_is_refused():
    with pytest.raises(InputError, match="not one image to evaluate on"):
        evaluate(make("dml"), [])


# minimize


def test_minimize_clears_stale_gradients():
    x = torch.tensor(5.0, requires_grad=True)
    x.grad = torch.tensor(100.0)
    minimize({"loss": 2 * x}, torch.optim.SGD([x], lr=1.0))
    assert x.item() == 3.0


def test_two_minimizations_in_a_row_do_not_add_up():
    x = torch.tensor(5.0, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=1.0)
    for _ in range(2):
        minimize({"loss": 2 * x}, optimizer)
    assert x.item() == 1.0


def test_loss_terms_that_come_and_go_are_refused():
    training = TrainingState(make("independent"))
    training.record({"ce": torch.ones(())})
    with pytest.raises(InputError, match="return the same in every step"):
        training.record({"ce": torch.ones(()), "kd": torch.ones(())})


def test_evaluation_is_in_float32_even_under_autocast():
    method = make("ffl")
    alone = evaluate(method, toy_batches())
    with torch.autocast("cpu", torch.bfloat16):
        assert evaluate(method, toy_batches()) == alone


def test_batches_may_be_pairs_as_a_dataloader_gives_them():
    pairs = [[batch.views[0], batch.labels] for batch in toy_batches(n=2)]
    ours, theirs = make("dml"), make("dml")
    fit(ours, toy_batches(n=2), epochs=1, make_optimizer=sgd)
    fit(theirs, pairs, {"test": pairs}, epochs=1, make_optimizer=sgd)
    assert_same_tensors(ours.state_dict(), theirs.state_dict())


def test_what_is_no_batch_is_named():
    with pytest.raises(InputError, match="a batch is a Tensor"):
        fit(make("dml"), [torch.zeros(2, 3, 8, 8)], epochs=1)


def test_a_set_epoch_of_one_argument_is_left_alone():
    class Sampler(list):
        def set_epoch(self, epoch):
            raise AssertionError

    fit(make("dml"), Sampler(toy_batches(n=1)), epochs=1)


def test_a_generator_that_is_used_up_is_named():
    with pytest.raises(InputError, match=r"in epoch 2: a generator can be gone through only once"):
        fit(make("dml"), iter(toy_batches(n=1)), epochs=2)


@pytest.mark.long
def test_an_unknown_precision_is_refused():
    """In a process of its own, because here a type checker is faster."""
    code = (
        "from codistill import Peers, build_network, fit\n"
        "from codistill.methods import Independent\n"
        "method = Independent(Peers([build_network('resnet8', 2)]))\n"
        "fit(method, [], epochs=1, precision='fp8')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "InputError: precision is 'fp8': give 'fp32' or 'bf16' or 'fp16'" in done.stderr


class TwoSteps(Method):
    """Takes two steps in one, and tells the loss before each."""

    def losses(self, out, labels, epoch):
        return {"ce": ce_loss(out.logits, labels)}

    def training_step(self, batch, optimizers, epoch):
        told = {}
        for name in "ab":
            losses = self.losses(self(batch.views), batch.labels, epoch)
            minimize(losses, optimizers["main"])
            told[name] = losses["ce"]
        return told


def test_in_bf16_a_second_step_sees_the_weights_after_the_first():
    torch.manual_seed(0)
    training = TrainingState(TwoSteps(Peers([tiny()])), sgd)
    (batch,) = toy_batches(n=1)
    (record,) = fit(training.method, [batch], epochs=1, state=training, precision="bf16")
    assert record["loss/b"] < record["loss/a"] - 0.05


def test_evaluation_draws_no_random_numbers_of_the_callers():
    method, loader = make("dml"), torch.utils.data.DataLoader(toy_batches(n=2), batch_size=None)
    before = torch.get_rng_state()
    evaluate(method, loader)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")
def test_losses_of_an_interrupted_epoch_go_on_where_the_method_is():
    """A checkpoint is read on the CPU; what the epoch's later steps add is on the device."""
    begun = TrainingState(make("dml"), sgd)
    begun.record({"ce": torch.ones(()), "kd": torch.ones(())})
    resumed = TrainingState(make("dml").to("meta"), sgd)
    resumed.load_state_dict(begun.state_dict())
    assert {loss.device.type for values in resumed.terms.values() for loss in values} == {"meta"}


def test_a_training_that_is_asked_to_stop_goes_on_to_the_same_bits():
    """Before the first step, after each step, and within each evaluation."""
    sets = {"val": toy_batches(n=2), "test": toy_batches(n=1)}
    whole = TrainingState(make("ffl", K=2), sgd)
    saved = copy.deepcopy(whole.state_dict())
    records = fit(whole.method, toy_batches(n=3), sets, epochs=2, state=whole)
    places, found = [], []
    while not places or places[-1] != (2, 0):
        assert len(places) < 40, "it never comes to its end"
        stopped = TrainingState(make("ffl", K=2), sgd)
        stopped.load_state_dict(saved)
        left = itertools.count(len(places) % 6, -1)
        stop = functools.partial(lambda left: next(left) == 0, left)
        found += fit(stopped.method, toy_batches(n=3), sets, epochs=2, state=stopped, stop=stop)
        places.append((stopped.epoch, stopped.step))
        saved = copy.deepcopy(stopped.state_dict())
    assert_same_tensors(stopped.method.state_dict(), whole.method.state_dict())
    times = ("seconds", "images_per_second")
    for record, expected in zip(found, records, strict=True):
        assert {k: v for k, v in record.items() if k not in times} == {
            k: v for k, v in expected.items() if k not in times
        }
        assert record["images_per_second"] > 0
    assert {(0, 0), (0, 1), (0, 3), (1, 0), (1, 3)} <= {*places}


def test_random_numbers_of_other_gpus_are_neither_saved_nor_asked_for(monkeypatch):
    """A training on the second of several GPUs, told to PyTorch's own functions."""
    own, seen = torch.device("cuda", 1), {}
    monkeypatch.setattr("torch.cuda.get_rng_state_all", lambda: pytest.fail("all were asked"))
    monkeypatch.setattr("torch.cuda.set_rng_state_all", lambda _: pytest.fail("all were set"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda gpu: torch.tensor([gpu.index]))
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda x, gpu: seen.update({gpu: x.item()}))

    def with_gpu(gpu):
        training = TrainingState(make("dml"), sgd)
        monkeypatch.setattr("codistill.training.state.device_of", lambda _: gpu)
        return training

    of_cpu = with_gpu(torch.device("cpu")).state_dict()
    assert of_cpu["rng_cuda"] is None
    of_gpu = with_gpu(own).state_dict()
    assert of_gpu["rng_cuda"].tolist() == [1]
    with_gpu(torch.device("cpu")).load_state_dict(of_gpu)
    with_gpu(own).load_state_dict(of_cpu)
    assert not seen
    other = torch.device("cuda", 0)
    with_gpu(other).load_state_dict(of_gpu)
    assert seen == {other: 1}


def test_epochs_between_evaluations_have_records_without_metrics():
    method = make("dml", K=2)
    evaluate_on = {"test": toy_batches()}
    records = fit(
        method, toy_batches(), evaluate_on, epochs=9, make_optimizer=sgd, evaluate_every=2
    )
    evaluated = [r["epoch"] for r in records if "test/top1/peer0" in r]
    assert evaluated == [2, 4, 5, 6, 7, 8, 9]  # every second, and the last five
    assert all("loss/ce" in r for r in records)


def test_how_often_is_evaluated_changes_no_weight():
    weights = []
    for every in (1, 4):
        method = make("ffl", K=2)
        fit(method, toy_batches(), {"test": toy_batches()}, epochs=6, evaluate_every=every)
        weights.append(method.state_dict())
    assert_same_tensors(*weights)
