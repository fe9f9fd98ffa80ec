"""Small networks, batches and methods that the tests share."""

import functools

import torch
from torch import nn

from codistill import Batch, Network, Peers, build_network, fit
from codistill.analysis import Guesses, Predictions
from codistill.data.dataset import Split
from codistill.methods import method_class

C = 4  # classes of the toy problem
sgd = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-4)


def tiny(num_classes=C, width=4, strides=(1, 2, 2), dropout=0.0):
    """A network of three stages, one convolution each."""
    channels, reductions, stages, d_in, reduction = [], [], [], 3, 1
    for s, stride in enumerate(strides):
        d_out = width * 2**s
        reduction *= stride
        conv = nn.Conv2d(d_in, d_out, 3, stride, padding=1, bias=False)
        drop = [nn.Dropout(dropout)] if dropout else []
        stages.append(nn.Sequential(conv, nn.BatchNorm2d(d_out), nn.ReLU(), *drop))
        channels.append(d_out)
        reductions.append(reduction)
        d_in = d_out
    return Network(stages, channels, reductions, num_classes)


def echo(size=2):
    """A network without weights, whose logits are the pixels: 3 * size * size classes."""
    return Network([nn.Identity()], [3], [1], 3 * size * size, nn.Flatten())


def make(name="ffl", shared=2, K=3, seed=0, dropout=0.0, **options):
    """A method of K tiny peers."""
    torch.manual_seed(seed)
    peers = Peers([tiny(dropout=dropout) for _ in range(K)], shared)
    return method_class(name)(peers, **needed(name) | options)


@functools.cache
def _built(*arguments, **options):
    return build_network(*arguments, **options)


def build_once(*arguments, **options):
    """`build_network`, which looks once for the stages of a network of timm or torchvision.

    That takes up to some seconds. The networks that it returns begin with the same weights.
    """
    return _built(*arguments, **options).clone()


def needed(name):
    """The options that a method cannot do without."""
    return {"teacher": taught()} if name in ("kd", "shake") else {}


@functools.cache
def _taught():
    torch.manual_seed(9)
    network = tiny()
    method = method_class("independent")(Peers([network]))
    fit(method, toy_batches(), epochs=16, make_optimizer=sgd)
    return network


def taught():
    """A tiny network that knows the toy problem."""
    with torch.random.fork_rng():
        return _taught().clone()


def can_share(name, shared):
    """Whether a method takes peers that share so many stages."""
    return not (name == "one" and shared == 0 or name == "codistillation" and shared > 0)


def toy_batches(views=1, n=4, B=32, size=8, seed=0):
    """Images whose class is written in their brightness."""
    rng = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(n):
        labels = torch.randint(C, (B,), generator=rng)
        clean = (labels - (C - 1) / 2).view(B, 1, 1, 1)
        noise = torch.randn(views, B, 3, size, size, generator=rng)
        batches.append(Batch(list(clean + 0.3 * noise), labels))
    return batches


def toy_split(n=40, height=8, width=8, seed=0):
    """Random pixels."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, height, width, 3), generator=rng, dtype=torch.uint8)
    return Split(images, torch.arange(n) % C)


def told(labels, first, second):
    """`Predictions` of "peer0" and "fused", by what they guess."""
    of = {
        name: Guesses(torch.tensor(guesses), *torch.zeros(3, len(labels)))
        for name, guesses in (("peer0", first), ("fused", second))
    }
    return Predictions(torch.arange(len(labels)), torch.tensor(labels), of)


def steps(method, batches, make_optimizer=sgd, epoch=1):
    """The losses of one step for each batch."""
    optimizers = method.optimizers(make_optimizer)
    method.begin_epoch(epoch, None)
    return [method.training_step(batch, optimizers, epoch) for batch in batches]


def assert_same_tensors(first, second):
    """Two state dicts hold the same names and, to the bit, the same tensors."""
    assert first.keys() == second.keys()
    assert [n for n in first if not torch.equal(first[n], second[n])] == []
