"""What a method is made of and what a training step costs, before anything is trained.

FLOPs are those of convolutions and matrix products, as `torch.utils.flop_counter` counts them, with
2 FLOPs per multiply-add: ResNet-32 on a 32x32 image has 138.3 MFLOPs, the 69 M multiply-adds of the
literature. Normalisation, activations and pooling are left out, as they are there.

Memory is measured, not guessed, but for an allowance that is stated. What is not covered: the data
set, evaluation, several processes; what `Peers.recompute` saves; terms that a method only adds at a
later epoch; losses that compare all images of a batch, whose memory grows with its square; what
`training_step` does beside one forward pass and its losses, such as AFD's discriminators: no part
of the FLOPs either.
"""

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from codistill.errors import require_positive
from codistill.method import Method
from codistill.networks import Network
from codistill.networks.network import as_map
from codistill.peers import Peers
from codistill.precision import Precision

# Peak resident memory of a process that takes 4 steps of SGD, less that after the imports, in MiB:
# measured, and in parentheses `MemoryEstimate.tensors` and `.total`. Batches of 128 at 32x32 unless
# said otherwise, float32, 2 threads, PyTorch 2.13 on x86-64 Linux with glibc 2.36.
#
#   FFL, 2 branches of resnet20, shared=2                 430  (240,  428)
#   FFL, 2 branches of resnet32, shared=2                 601  (372,  602)
#   the same, batches of 32                               230  (100,  240)
#   the same, batches of 256                             1049  (734, 1085)
#   FFL, 2 wrn_16_2, shared=0                             830  (531,  812)
#   FFL, 3 branches of resnet8, shared=1, 64 at 64x64     596  (326,  544)
#   DML, wrn_16_2 and resnet20, shared=0                  764  (443,  697)
#   Independent, 1 resnet20                               380  (195,  369)
#   Independent, 1 wrn_28_2, batches of 64                431  (250,  437)
#   FFL, 2 branches of resnet32, shared=2, bf16           351  (193,  363)
#   DML, wrn_16_2 and resnet20, shared=0, bf16            448  (230,  413)
#
# With MALLOC_MMAP_THRESHOLD_=65536 the second is 477 and its process has 111 after a step on two
# images: the tensors are right to 2 %, and the rest is PyTorch's kernels, loaded at their first
# use, and memory that malloc holds but cannot use. Not measured: other devices, whose allocators
# need less.
_RUNTIME = 110 * 2**20
_MALLOC = 1 / 3  # of the activations

_PROBES = 2, 4  # images; batch normalisation cannot train on one


@dataclass(frozen=True)
class StageSummary:
    """One stage of a network, or its head.

    Attributes:
        name: "stage 0", "stage 1", ..., "head".
        shape: of its output for one image: (D, H, W), or (C,) of the head.
        parameters: how many.
        flops: forward, for one image; 2 per multiply-add.
        shared: whether all peers have it in common.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    flops: int
    shared: bool


@dataclass(frozen=True)
class PeerSummary:
    """One peer as a network alone, what it shares counted in.

    Attributes:
        stages: in order; the last is the head.
        parameters: of the network.
        flops: forward, for one image; 2 per multiply-add.
    """

    stages: tuple[StageSummary, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one training step needs.

    Attributes:
        weights: all parameters, those that are not trained too.
        gradients: one per trained weight.
        optimizers: their state: one number per weight that SGD moves, with momentum, two for Adam.
        buffers: such as the statistics of batch normalisation.
        activations: what the forward pass saves for the backward pass, the images among it;
            measured on 2 and 4 images and extrapolated to the batch.
    """

    weights: int
    gradients: int
    optimizers: int
    buffers: int
    activations: int

    @property
    def tensors(self) -> int:
        """What tensors hold at the peak."""
        return self.weights + self.gradients + self.optimizers + self.buffers + self.activations

    @property
    def allowance(self) -> int:
        """What a process on the CPU was seen to need beyond its tensors and the imports."""
        return _RUNTIME + round(_MALLOC * self.activations)

    @property
    def total(self) -> int:
        """What a process on the CPU needs beyond what it has after the imports."""
        return self.tensors + self.allowance


@dataclass(frozen=True)
class Summary:
    """A method with its peers.

    Attributes:
        method: the name of its class.
        image_size: height and width.
        batch_size: images per step.
        views: how many augmentations of each image the method asks for.
        forwards: how often the peers compute a batch in a step.
        peers: each as a network alone.
        peers_parameters: of all peers, what they share counted once.
        peers_flops: forward, for one view of one image, what they share counted once.
        modules: parameters of each module that the method adds, by name; parameters that it
            holds itself go by their own names. What belongs to the peers is not counted again.
        parameters: of the peers and the method.
        extra: the classifiers beside the peers, by name: "ensemble" and the method's own.
        flops: forward, for all views of one image, peers and method, its losses in epoch 0.
        memory: of one training step.
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
) -> Summary:
    """What `method` is made of and costs. Runs a copy of it on a few random images.

    The method, its modes and gradients, and the random numbers to come are afterwards as before.
    """
    height, width = image_size
    require_positive(height=height, width=width, batch_size=batch_size)
    with _probing(method) as probe:
        # A student is a copy: students first, since the probe's BatchNorm statistics then move.
        peers = tuple(_summarise_peer(probe.peers, k, image_size) for k in range(len(probe.peers)))
        with FlopCounterMode(display=False) as counter:
            out = probe(_random_views(probe, image_size, _PROBES[0]))
            probe.losses(out, _labels(probe, _PROBES[0]), 0)  # an attention may be part of these
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
            flops=counter.get_total_flops() // _PROBES[0],
            memory=_estimate_memory(probe, image_size, batch_size, precision),
        )


@contextmanager
def _probing(method: Method) -> Iterator[Method]:
    """A copy of `method` in train mode to run freely, with gradients on and random numbers kept."""
    device = _device(method)
    devices = [device] if device.type == "cuda" else []
    # inference_mode(False) ends a caller's no_grad too
    with torch.random.fork_rng(devices=devices), torch.inference_mode(False):
        probe = copy.deepcopy(method).train()
        probe.peers.recompute = False
        yield probe


def _summarise_peer(peers: Peers, k: int, image_size: tuple[int, int]) -> PeerSummary:
    network = peers.student(k).eval()
    stages = tuple(_summarise_stages(network, peers.shared, image_size))
    return PeerSummary(stages, _count(network.parameters()), sum(s.flops for s in stages))


@torch.no_grad()
def _summarise_stages(
    network: Network, shared: int, image_size: tuple[int, int]
) -> Iterator[StageSummary]:
    x = _random_images(1, image_size, _device(network))
    for s, stage in enumerate([*network.stages, network.head]):
        with FlopCounterMode(display=False) as counter:
            x = stage(x)
        is_head = s == len(network.stages)
        y = x if is_head else as_map(x, network.layouts[s], network.reductions[s], image_size)
        yield StageSummary(
            name="head" if is_head else f"stage {s}",
            shape=tuple(y.shape[1:]),
            parameters=_count(stage.parameters()),
            flops=counter.get_total_flops(),
            shared=s < shared,
        )


def _flops_together(peers: Sequence[PeerSummary]) -> int:
    """The FLOPs of all peers, where only the first one computes what is shared."""
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


def _estimate_memory(
    method: Method, image_size: tuple[int, int], batch_size: int, precision: Precision
) -> MemoryEstimate:
    few, more = _PROBES
    low, high = (_saved_bytes(method, image_size, b, precision) for b in _PROBES)
    per_image = (high - low) / (more - few)
    trained = _bytes(p for p in method.parameters() if p.requires_grad)
    return MemoryEstimate(
        weights=_bytes(method.parameters()),
        gradients=trained,
        optimizers=_optimizer_bytes(method),
        buffers=_bytes(method.buffers()),
        activations=max(0, round(low + per_image * (batch_size - few))),
    )


def _optimizer_bytes(method: Method) -> int:
    """What the method's optimizers keep, where the recipe chose SGD with momentum."""
    optimizers = method.optimizers(functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    return sum(
        (2 if "betas" in group else 1) * _bytes(p for p in group["params"] if p.requires_grad)
        for optimizer in optimizers.values()
        for group in optimizer.param_groups
    )


def _saved_bytes(
    method: Method, image_size: tuple[int, int], images: int, precision: Precision
) -> int:
    """What a forward pass keeps for the backward pass: every storage once, weights not at all."""
    views = _random_views(method, image_size, images)
    labels = _labels(method, images)
    saved: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor  # which keeps it alive: its address will not be given to another

    def load(tensor: Tensor) -> Tensor:
        return tensor

    with (
        torch.autocast(labels.device.type, torch.bfloat16, enabled=precision == "bf16"),
        saved_tensors_hooks(save, load),
    ):
        losses = method.losses(method(views), labels, 0)
    for tensor in (*method.parameters(), *method.buffers()):
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    del losses  # and with it the graph, which had to live until here
    return sum(saved.values())


def _random_views(method: Method, image_size: tuple[int, int], images: int) -> list[Tensor]:
    device = _device(method)
    return [_random_images(images, image_size, device) for _ in range(method.views)]


def _labels(method: Method, images: int) -> Tensor:
    return torch.arange(images, device=_device(method)) % method.peers.num_classes


def _random_images(images: int, image_size: tuple[int, int], device: torch.device) -> Tensor:
    """Images in the layout in which `TrainBatches` has them."""
    x = torch.randn(images, 3, *image_size)
    return x.to(device, memory_format=torch.channels_last)


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
