"""What processes do in test_distributed.py; one process alone does the same."""

import contextlib
import functools
import importlib
import itertools
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from toys import C, make, taught, toy_split

from codistill import InputError, TrainingState, distributed, evaluate, files, fit
from codistill.command.main import main
from codistill.data.batches.in_memory import Augmentation, EvalBatches, TrainBatches
from codistill.data.batches.mixing import MixedBatches, Mixing
from codistill.data.normalisation import Normalisation
from codistill.methods import gradient_sums
from codistill.methods.minimize import Updates
from codistill.names import METHODS
from codistill.training import state as state_file
from codistill.training.sync_bn import synchronise
from codistill.training.updates import UpdateOptions

sgd = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
NORMALISATION = Normalisation((120.0,) * 3, (60.0,) * 3)
COUPLED = ("mcl", "switokd")  # their losses are no means over images
VARIANTS = {
    **{name: {} for name in METHODS if name not in COUPLED},
    "kdcl general": {"target": "general"},
    "kdcl linear": {"target": "linear"},
    "afd l1": {"alignment": "l1"},
    "okdmde plain": {"fusion": False},
}


class Doubled:
    """Batches in float64."""

    def __init__(self, batches):
        self.batches = batches
        self.start_at = getattr(batches, "start_at", None)

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return map(self._double, self.batches)

    def dealt(self, rank, size):
        return map(self._double, self.batches.dealt(rank, size))

    def _double(self, batch):
        labels = batch.labels.double() if batch.labels.is_floating_point() else batch.labels
        return batch.with_tensors([v.double() for v in batch.views], labels)


def train_batches(n=37, B=16, views=1, mixing=None, group=0, **augmentation):
    batches = TrainBatches(
        toy_split(n),
        B,
        NORMALISATION,
        Augmentation(pad=1, **augmentation),
        views,
        seed=3,
        class_group=group,
    )
    return Doubled(MixedBatches(batches, C, mixing, 3) if mixing else batches)


def eval_batches(n=23, B=4):
    return Doubled(EvalBatches(toy_split(n, seed=1), B, NORMALISATION))


def held_still(method):
    """The method, whose batch normalisation uses the statistics that it has."""
    for module in method.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
            module.train = functools.partial(_stays, module)
    return method


def _stays(module, mode=True):
    return module


def method_of(variant, seed=0):
    name, options = variant.split()[0], VARIANTS.get(variant, {})
    shared = {"one": 2, "cl_ilr": 2, "ffl": 2}.get(name, 0)
    return make(name, shared=shared, seed=seed, **options).double()


def train(variant, bn="frozen", epochs=2, options=None, method=None, recompute=False, **batches):
    """Tensors of a method after two epochs, and its records."""
    method = method or method_of(variant, seed=distributed.rank())  # the first one's weights count
    method.peers.recompute = recompute
    if bn == "frozen":
        held_still(method)
    elif bn == "synchronised":
        synchronise(method)
    state = TrainingState(method, sgd, UpdateOptions(**options or {}))
    fit(
        method,
        train_batches(views=method.views, **batches),
        {"test": eval_batches()},
        epochs=epochs,
        held_out=eval_batches(10),
        state=state,
    )
    return state.result.state_dict(), state.history


def in_many_messages():
    """Sums leave during the backward pass, as those of large networks do."""
    gradient_sums.MESSAGE, gradient_sums._LAST = 20000, 2000


def every_method(bn, together=True):
    """What `train` returns of each variant."""
    taught()
    if bn == "synchronised" and together:  # which sums in the backward pass as well
        in_many_messages()
    with distributed.joined() if together else contextlib.nullcontext():
        epochs = 2 if bn == "frozen" else 1
        return {variant: train(variant, bn, epochs, n=21) for variant in VARIANTS}


def one_writer(arguments):
    """The command, where only the first process can write files."""

    def refuse(path):
        raise AssertionError(f"{path} is written by another process than the first")

    if os.environ["RANK"] != "0":
        files.written = refuse
    return main(arguments)


LOCAL = ("ffl", "pcl", "afd")


def local_statistics():
    """Some methods, whose batch normalisation uses the images of its process alone."""
    with distributed.joined():
        return {variant: train(variant, "local") for variant in LOCAL}


class InPieces(nn.BatchNorm2d):
    """Batch normalisation of one process, as three of it would normalise their pieces."""

    def forward(self, x):
        if not self.training or len(x) < 6:
            return super().forward(x)
        ends = [len(x) * r // 3 for r in range(4)]
        pieces = [x[begin:end] for begin, end in itertools.pairwise(ends)]
        variance, mean = zip(*(torch.var_mean(p, (0, 2, 3)) for p in pieces), strict=True)
        shares = torch.tensor([len(p) / len(x) for p in pieces]).double()
        for moving, now in ((self.running_mean, mean), (self.running_var, variance)):
            moving.data.lerp_(torch.einsum("p,pc->c", shares, torch.stack(now).detach()), 0.1)
        self.num_batches_tracked += 1
        norm = functools.partial(F.batch_norm, weight=self.weight, bias=self.bias, training=True)
        return torch.cat([norm(p, None, None) for p in pieces])


def in_pieces(variant):
    """The same method in one process."""
    method = method_of(variant)
    for module in method.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = InPieces
    return train(variant, "local", method=method)


OPTIONS = {
    "mixup": {"mixing": Mixing(mixup=0.8, label_smoothing=0.1)},
    "cutmix": {"mixing": Mixing(cutmix=1.0)},
    "class weights": {"mixing": Mixing(class_weights=torch.tensor([0.5, 2.0, 1.0, 0.1]))},
    "all of them": {
        "mixing": Mixing(0.1, 0.8, 1.0, torch.tensor([0.5, 2.0, 1.0, 0.1])),
        "rand_augment": 9,
        "group": 4,
    },
    "accumulate": {"options": {"accumulate": 2}},
    "clipped": {"options": {"clip_norm": 0.1}},
    "averaged": {"options": {"ema": 0.9}},
    "frozen": {"options": {"freeze": 1}},
    "few images": {"n": 35},
    "recomputed": {"bn": "synchronised", "recompute": True},
}


def with_options(together=True):
    """DML with each of the options."""
    if together:
        in_many_messages()
    with distributed.joined() if together else contextlib.nullcontext():
        return {name: train("dml", epochs=1, **options) for name, options in OPTIONS.items()}


def evaluations(together=True):
    """FFL evaluated on different numbers of batches, by codistill's and by a list."""
    torch.manual_seed(0)
    method = method_of("ffl").float()
    numbers = (3, 4, 7, 8, 9, 13)
    with distributed.joined() if together else contextlib.nullcontext():
        batches = [EvalBatches(toy_split(n), 4, NORMALISATION) for n in numbers]
        batches += [EvalBatches(toy_split(520), 300, NORMALISATION)]  # enough to fold
        found = [evaluate(method, b) for b in [*batches, list(batches[-2])]]
        mine = list(range(7))[distributed.rank() :: distributed.size()]
        return found, distributed.dealt_out(mine)


class OnOneRank:
    """Batches that call a function in one process before one of the steps."""

    def __init__(self, batches, rank, step, act):
        self.batches, self.rank, self.step, self.act = batches, rank, step, act

    def __iter__(self):
        for step, batch in enumerate(self.batches):
            if (distributed.rank(), step) == (self.rank, self.step):
                batch = self.act(batch) or batch
            yield batch


def not_a_number():
    """One process has a NaN among its pixels."""
    with distributed.joined():
        batches = OnOneRank(
            train_batches(), 1, 2, lambda b: b.with_tensors([b.views[0] * torch.nan], b.labels)
        )
        fit(method_of("dml"), batches, epochs=1, make_optimizer=sgd)


def not_usable(rank):
    """One process cannot use its images."""

    def fail(_):
        raise InputError(f"process {rank} has no images")

    with distributed.joined():
        batches = OnOneRank(train_batches(), rank, 1, fail)
        fit(method_of("dml"), batches, epochs=1, make_optimizer=sgd)


def sums():
    """Tensors of several kinds, added up and taken from the first."""
    with distributed.joined():
        kinds = (torch.float32, torch.float64, torch.int64)
        ours = [torch.full((2, 3), 1 + distributed.rank(), dtype=kind) for kind in kinds]
        theirs = [x.clone() for x in ours]
        ours.append(torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last))
        distributed.add_up(ours)
        distributed.take_from_first(theirs)
        return ours, theirs


def threads_left():
    """Names of gloo's threads after training, where PyTorch imports a module of its own late."""
    late = "torch.distributed.nn.functional"  # as torch._dynamo does
    del sys.modules[late]
    with distributed.joined():
        importlib.import_module(late)
        distributed.add_up([torch.ones(3)])
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def stopped(rank):
    """One process is asked to stop in its second step; where each of them stops."""
    state_file._STEPS_BETWEEN_CHECKS = 1
    method = method_of("dml")
    with distributed.joined():
        state = TrainingState(method, sgd)

        def stop():
            return distributed.rank() == rank and state.step == 2

        fit(method, train_batches(), epochs=3, state=state, stop=stop)
        return state.epoch, state.step


def parted():
    """A step that does something else in each process."""
    method = method_of("dml")
    with distributed.joined():

        def move(batch):
            next(method.parameters()).data.add_(1e-9)

        fit(method, OnOneRank(train_batches(), 1, 1, move), epochs=1, make_optimizer=sgd)


def drawing():
    """Random numbers that each process draws in three steps."""
    method, drawn = make("dml", dropout=0.5, shared=0), []
    for network in method.peers.modules():
        if isinstance(network, nn.Dropout):
            network.register_forward_hook(lambda *_: drawn.append(torch.initial_seed()))
    with distributed.joined():
        fit(method, train_batches().batches, epochs=1, make_optimizer=sgd)
    return list(dict.fromkeys(drawn)), method.state_dict()


def loop_of_others():
    """AFD in the process group of somebody else's loop, which sums gradients before a step."""
    method = held_still(method_of("afd"))
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def step(optimizer):
        distributed.sum_gradients(w for group in optimizer.param_groups for w in group["params"])
        optimizer.step()

    updates = Updates(backward=lambda loss: (loss / size).backward(), step=step)
    optimizers = method.optimizers(sgd)
    for batch in train_batches(48, 12):
        part = slice(rank * 12 // size, (rank + 1) * 12 // size)
        with updates.active():
            piece = batch.with_tensors([view[part] for view in batch.views], batch.labels[part])
            method.training_step(piece, optimizers, 0)
    torch.distributed.destroy_process_group()
    return method.state_dict()


def own_loop():
    """A loop of one's own on equal pieces, and one that sums gradients itself."""
    methods = held_still(method_of("dml")), held_still(method_of("dml"))
    with distributed.joined():
        first, second = methods
        optimizer = sgd(first.parameters())
        for batch in train_batches(48, 12):
            first.training_step(batch, {"main": optimizer}, 0)
        optimizer = sgd(second.parameters())
        for batch in train_batches(48, 12):
            optimizer.zero_grad()
            losses = second.losses(second(batch.views), batch.labels, 0)
            (batch.share * torch.stack(list(losses.values())).sum()).backward()
            distributed.sum_gradients(second.parameters())
            optimizer.step()
    return [dict(method.named_parameters()) for method in methods]
