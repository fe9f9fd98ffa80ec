"""What processes with a peer each do in test_placement.py; one process alone does the same."""

import contextlib

import torch
from distributed_cases import (
    COUPLED,
    VARIANTS,
    OnOneRank,
    eval_batches,
    sgd,
    train_batches,
)
from torch import nn
from toys import C, make, needed, taught, tiny, toy_batches

from codistill import InputError, Method, Peers, TrainingState, distributed, fit
from codistill.data.batches.mixing import Mixing
from codistill.methods import method_class
from codistill.methods.losses import ce_loss
from codistill.training.sync_bn import synchronise
from codistill.training.updates import UpdateOptions

TRUNK_OR_WEIGHTS = ("one", "okdmde", "okdmde plain")  # what they need is not exchanged
FITTING = [name for name in [*VARIANTS, *COUPLED] if name not in TRUNK_OR_WEIGHTS]
OF_TWO = [v for v in FITTING if v not in ("okddip", "ffsd", "afd l1", "kdcl linear")]
OF_THREE = ("dml", "kdcl", "ffl", "mfef", "okddip", "ffsd", "okdmde")
OPTIONS = {
    "clipped": {"options": {"clip_norm": 0.1}},
    "accumulate": {"options": {"accumulate": 2}},
    "averaged": {"options": {"ema": 0.9}},
    "frozen": {"options": {"freeze": 1, "freeze_epochs": 1}},
    "mixed": {"mixing": Mixing(0.1, 0.8, 1.0, torch.tensor([0.5, 2.0, 1.0, 0.1]))},
}


def method_of(variant, K, seed=0):
    """A method of independent peers."""
    name = variant.split()[0]
    options = {"diversity_weight": 0.0} if name == "okdmde" else VARIANTS.get(variant, {})
    return make(name, shared=0, K=K, seed=seed, **options).double()


def unlike(name="ffl"):
    """A method of two peers that differ in width, in the sizes of maps and in normalisation."""
    torch.manual_seed(0)
    peers = Peers([tiny(), tiny(width=6, strides=(1, 2, 1))])
    for module in peers.branches[1].modules():
        if isinstance(module, nn.Sequential) and isinstance(module[1], nn.BatchNorm2d):
            module[1] = nn.GroupNorm(2, module[1].num_features)
    method = method_class(name)(peers, **needed(name))
    return method.double().to(memory_format=torch.channels_last)


def train(method, epochs=2, options=None, **batches):
    """Tensors of a method, and its records; with several processes each has a peer."""
    placement = "peers" if distributed.size() > 1 else "data"
    state = TrainingState(method, sgd, UpdateOptions(**options or {}), placement)
    fit(
        method,
        train_batches(n=18, views=method.views, **batches),
        {"test": eval_batches(6)},
        epochs=epochs,
        held_out=eval_batches(5),
        state=state,
    )
    with state.whole() as whole:
        return {name: x.clone() for name, x in whole.state_dict().items()}, state.history


def every_method(K, together=True):
    """What `train` returns of each variant."""
    taught()
    found = {}
    with distributed.joined() if together else contextlib.nullcontext():
        for variant in OF_TWO if K == 2 else OF_THREE:
            epochs = 2 if variant in ("codistillation", "pcl", "kdcl general") else 1
            found[variant] = train(method_of(variant, K, distributed.rank()), epochs)
        for name, options in OPTIONS.items() if K == 2 else ():
            found[name] = train(method_of("dml", K), **options)
        for name in ("ffl", "pcl") if K == 2 else ():
            found[f"unlike {name}"] = train(unlike(name), epochs=1)
    return found


def in_teams(together=True):
    """Two peers, of which two processes each have one."""
    methods = [method_of("ffl", 2), unlike("mfef")]
    with distributed.joined() if together else contextlib.nullcontext():
        for method in methods:
            synchronise(method)
        return [train(method, 1, {"ema": 0.9, "clip_norm": 1.0}) for method in methods]


def shares():
    """What each process has after two steps: weights, names, and what its optimizer has."""
    with distributed.joined():
        method = make("ffl", shared=0, K=2)
        state = TrainingState(method, sgd, placement="peers")
        (optimizer,) = state.optimizers.values()
        for batch in toy_batches(n=2):
            method.training_step(batch, state.optimizers, 0)
        graphs = refused(lambda: fit(method, [], epochs=1, state=state, cuda_graphs=True))
        names = {name for name, _ in method.named_parameters()}
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        with state.whole():
            whole = {name for name, _ in method.named_parameters()}
        after = {name for name, _ in method.named_parameters()}
        full = state.state_dict()["optimizers"]["main"]
        moved = {name: x.detach() for name, x in method.named_parameters()}
        return moved, len(weights), len(optimizer.state), names, whole, after, full, graphs


def refused(act):
    """The message of an InputError."""
    try:
        act()
    except InputError as error:
        return str(error)
    raise AssertionError("it is not refused")


class Drawing(Method):
    """Dropout in a module that all processes have."""

    def __init__(self, peers):
        super().__init__(peers)
        self.common = nn.Sequential(nn.Dropout(), nn.Linear(C, C))
        self.drawn = []

    def losses(self, out, labels, epoch):
        common = self.common(out.logits.detach().mean(dim=0))
        self.drawn.append(float(common.detach().sum()))
        return {"ce": ce_loss(out.logits, labels), "common": ce_loss(common, labels)}


def drawing():
    """What each process draws in its peer and in a common module, in three steps."""
    drawn = []
    method = Drawing(Peers([tiny(), tiny()]))
    with distributed.joined():
        state = TrainingState(method, sgd, placement="peers")
        stage = method.peers.branches[state.placement.own][0]
        stage.register_forward_pre_hook(lambda *_: drawn.append(torch.rand(4).tolist()))
        fit(method, toy_batches(n=3), epochs=1, state=state)
        return drawn, method.drawn


class Reading(Method):
    """A method that reads more of the peers than their outputs."""

    def __init__(self, peers, how):
        super().__init__(peers)
        self.how = how

    def losses(self, out, labels, epoch):
        losses = {"ce": ce_loss(out.logits, labels)}
        if self.how == "weights":
            losses["size"] = torch.stack([w.square().sum() for w in self.peers.parameters()]).sum()
        else:
            maps = [x.detach() for x in out.feature_maps]
            others = zip(self.peers.heads, maps[1:] + maps[:1], strict=True)
            losses["others"] = torch.stack([ce_loss(f(x), labels) for f, x in others]).sum()
        return losses


def reading(how):
    """Trains a method that does not fit; the number of steps that it took, and why it ended."""
    torch.manual_seed(0)
    method = Reading(Peers([tiny(), tiny()]), how)
    with distributed.joined():
        state = TrainingState(method, sgd, placement="peers")
        try:
            fit(method, toy_batches(n=3), epochs=1, state=state)
        except (InputError, RuntimeError) as error:
            return state.step, str(error)


def overflow(rank):
    """Weights and scales after a step in which a gradient of one process overflows."""
    method = make("dml", shared=0, K=2)
    with distributed.joined():
        state = TrainingState(method, sgd, UpdateOptions(clip_norm=1.0), placement="peers")
        before = {name: x.clone() for name, x in method.named_parameters()}
        first, second, _, _ = toy_batches()
        if distributed.rank() == rank:
            weight = next(method.parameters())
            hook = weight.register_hook(lambda gradient: gradient * torch.inf)
        moved, scales = [], []
        for batch in (first, second):
            with state.updates.active(scaled=True):
                method.training_step(batch, state.optimizers, 0)
            now = method.named_parameters()
            moved.append([name for name, x in now if not torch.equal(x, before[name])])
            scales.append(state.updates.state_dict(state.optimizers)["main"]["scale"])
            if distributed.rank() == rank:
                hook.remove()
        return moved, scales


def not_a_number():
    """One process has a NaN among its pixels."""
    with distributed.joined():
        batches = OnOneRank(
            train_batches(), 1, 2, lambda b: b.with_tensors([b.views[0] * torch.nan], b.labels)
        )
        method = method_of("ffl", 2)
        fit(method, batches, epochs=1, state=TrainingState(method, sgd, placement="peers"))


def sent():
    """Numbers of elements that a step of some methods sends, by method; and strides of a map."""
    found = {}
    exchange = distributed.exchange
    with distributed.joined():
        for name in ("dml", "mcl", "ffl", "afd l1"):
            method = method_of(name, 2).to(memory_format=torch.channels_last)
            state = TrainingState(method, sgd, placement="peers")
            (batch,) = toy_batches(n=1, B=6)
            batch = batch.with_tensors([batch.views[0].double()], batch.labels)
            found[name] = []
            distributed.exchange = lambda tensors, of=found[name]: (
                of.append({k: x.numel() for k, x in tensors.items()}),
                exchange(tensors),
            )
            with state.updates.active():
                out = method(batch.views)
                maps = [*out.feature_maps, *out.feature_maps] if name == "ffl" else []
                method.losses(out, batch.labels, 0)
            if maps:
                found["strides"] = [x.stride() for x in maps]
            distributed.exchange = exchange
    return found
