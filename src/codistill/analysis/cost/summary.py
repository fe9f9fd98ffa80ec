"""The parts of a method and the cost of a training step, before anything is trained.

FLOPs are counted as `methods.flops` says, without what `training_step` does beside one forward pass
and its losses, such as AFD's discriminators, and without terms that a method only adds at a later
epoch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from codistill.analysis.cost.memory import MemoryEstimate, estimate_memory
from codistill.analysis.cost.probing import probing, random_images, random_views, some_labels
from codistill.errors import require_positive
from codistill.methods.flops import count_flops
from codistill.methods.method import Method
from codistill.methods.optimizers import MakeOptimizer
from codistill.networks import Network
from codistill.networks.network import as_map
from codistill.networks.peers import Outputs, Peers
from codistill.training.device import Precision, device_of
from codistill.training.updates import UpdateOptions

_IMAGES = 2  # batch normalisation cannot train on one


@dataclass(frozen=True)
class StageSummary:
    """One stage of a network, or its head.

    Attributes:
        name: "stage 0", "stage 1", ..., "head".
        shape: shape of its output for one image: (D, H, W), or (C,) for the head.
        parameters: number of parameters.
        flops: FLOPs forward for one image, 2 per multiply-add.
        shared: whether all peers share it.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    flops: int
    shared: bool


@dataclass(frozen=True)
class PeerSummary:
    """One peer as a network by itself, with the stages that it shares.

    Attributes:
        stages: stages in order; the last is the head.
        parameters: number of parameters of the network.
        flops: FLOPs forward for one image, 2 per multiply-add.
    """

    stages: tuple[StageSummary, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class Summary:
    """A method with its peers.

    Attributes:
        method: name of its class.
        image_size: height and width.
        batch_size: images per step.
        views: augmented views of each image that the method asks for.
        forwards: number of times that the peers compute a batch in a step.
        peers: each peer as a network by itself.
        peers_parameters: parameters of all peers; shared ones count once.
        peers_flops: FLOPs forward for one view of one image; shared stages count once.
        modules: parameters of each module that the method adds, by name; parameters that it
            holds itself have their own names. Those of the peers do not count again.
        parameters: parameters of the peers and the method.
        extra: names of the classifiers beside the peers: "ensemble" and the method's own.
        flops: FLOPs forward for all views of one image, of peers, method and losses in epoch 0.
        memory: memory of one training step.
    """

    method: str
    image_size: tuple[int, int]
    batch_size: int
    views: int
    forwards: int
    peers: tuple[PeerSummary, ...]
    peers_parameters: int
    peers_flops: int
    modules: Mapping[str, int]
    parameters: int
    extra: tuple[str, ...]
    flops: int
    memory: MemoryEstimate


def summarise_method(
    method: Method,
    image_size: tuple[int, int],
    batch_size: int,
    precision: Precision = "fp32",
    make_optimizer: MakeOptimizer | None = None,
    options: UpdateOptions | None = None,
) -> Summary:
    """The parts and the cost of `method`, found by running a copy on a few random images.

    The method, its modes and gradients, and the state of random numbers do not change. Arguments
    are those of `estimate_memory`.
    """
    height, width = image_size
    require_positive(height=height, width=width, batch_size=batch_size)
    with probing(method) as probe:
        # A student is a copy: students first, since the probe's BatchNorm statistics then move.
        peers = tuple(_summarise_peer(probe.peers, k, image_size) for k in range(len(probe.peers)))
        out, flops = count_flops(_forward_with_losses, probe, image_size)
        return Summary(
            method=type(method).__name__,
            image_size=image_size,
            batch_size=batch_size,
            views=method.views,
            forwards=method.forwards,
            peers=peers,
            peers_parameters=_count(probe.peers.parameters()),
            peers_flops=_flops_together(peers),
            modules=_own_modules(probe),
            parameters=_count(probe.parameters()),
            extra=tuple(out.extra),
            flops=flops // _IMAGES,
            memory=estimate_memory(
                probe, image_size, batch_size, precision, make_optimizer, options
            ),
        )


def _forward_with_losses(method: Method, image_size: tuple[int, int]) -> Outputs:
    out: Outputs = method(random_views(method, image_size, _IMAGES))
    method.losses(out, some_labels(method, _IMAGES), 0)  # an attention may be part of these
    return out


def _summarise_peer(peers: Peers, k: int, image_size: tuple[int, int]) -> PeerSummary:
    network = peers.student(k).eval()
    stages = tuple(_summarise_stages(network, peers.shared, image_size))
    return PeerSummary(stages, _count(network.parameters()), sum(s.flops for s in stages))


@torch.no_grad()
def _summarise_stages(
    network: Network, shared: int, image_size: tuple[int, int]
) -> Iterator[StageSummary]:
    x = random_images(1, image_size, device_of(network))
    for s, stage in enumerate([*network.stages, network.head]):
        x, flops = count_flops(stage, x)
        is_head = s == len(network.stages)
        y = x if is_head else as_map(x, network.layouts[s], network.reductions[s], image_size)
        yield StageSummary(
            name="head" if is_head else f"stage {s}",
            shape=tuple(y.shape[1:]),
            parameters=_count(stage.parameters()),
            flops=flops,
            shared=s < shared,
        )


def _flops_together(peers: Sequence[PeerSummary]) -> int:
    """The FLOPs of all peers; shared stages count once."""
    return sum(
        stage.flops
        for k, peer in enumerate(peers)
        for stage in peer.stages
        if k == 0 or not stage.shared
    )


def _own_modules(method: Method) -> dict[str, int]:
    seen = set(method.peers.parameters())
    own = {n: set(m.parameters()) for n, m in method.named_children() if m is not method.peers}
    own |= {name: {parameter} for name, parameter in method.named_parameters(recurse=False)}
    found = {}
    for name, parameters in own.items():
        found[name] = _count(parameters - seen)
        seen |= parameters
    return found


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)
