"""The networks that learn together, and what they compute for one batch."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codistill.errors import InputError
from codistill.networks.apart import Elsewhere, Exchange, Maps, own_random_numbers
from codistill.networks.network import Network, as_map
from codistill.networks.recompute import run_and_forget


@dataclass
class Outputs:
    """All that K peers computed for B images of C classes.

    Attributes:
        logits: the predictions of the peers, (K, B, C).
        stages: the maps of each peer: `stages[k][0]` is its image, `stages[k][s]` its feature map
            (B, D, H, W) after s stages, and `stages[k][-1]` the map that its head reads.
        extra: further classifiers by name, (B, C) each: "ensemble" if there are several peers, and
            what a method adds, such as "fused".
        split: the trunk's output for each view, which all branches read: there the gradients of
            all peers meet. Empty without a trunk.
        hidden: further tensors by name, of any shape, that a method's `forward` leaves for its
            `losses`; they are neither evaluated nor reported.
    """

    logits: Float[Tensor, "K B C"]
    stages: Sequence[Sequence[Tensor]]
    extra: dict[str, Float[Tensor, "B C"]] = field(default_factory=dict)
    split: list[Tensor] = field(default_factory=list)
    hidden: dict[str, Tensor] = field(default_factory=dict)

    @property
    def feature_maps(self) -> list[Tensor]:
        """The last feature map of each peer, (B, D, H, W)."""
        return [maps[-1] for maps in self.stages]

    @property
    def embeddings(self) -> list[Tensor]:
        """The last feature map of each peer, averaged over space: (B, D)."""
        return [
            maps.averaged() if isinstance(maps, Maps) else maps[-1].mean(dim=(2, 3))
            for maps in self.stages
        ]

    @property
    def classifiers(self) -> dict[str, Float[Tensor, "B C"]]:
        """The logits of all that is evaluated and reported, by name."""
        return {f"peer{k}": z_k for k, z_k in enumerate(self.logits)} | self.extra


class Kept(NamedTuple):
    """A classifier that a method keeps in the end: one peer of some `Peers`."""

    peers: "Peers"
    k: int

    def network(self) -> Network:
        """The peer as a network of its own, with its own weights."""
        return self.peers.student(self.k)


class Peers(nn.Module):
    """K networks side by side, sharing their first `shared` stages.

    With `shared=0` the peers are independent networks and may differ in architecture.
    With `shared>0` they are branches on one trunk, which is that of the first network; the
    first stages of the others are dropped. The networks' modules are taken over, not copied.

    Args:
        networks: K classifiers of the same classes.
        shared: number of first stages that are common to all, 0 to the number of stages.
        recompute: whether stages are computed again in the backward pass, to save memory.
        classes: names of the classes in the order of the logits, where they are known. A teacher
            is brought into this order.

    Attributes:
        architectures: the name that `build_network` built each network by; empty if made otherwise.
        own: the peer that this process has, where each of several processes has one; else None.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        shared: int = 0,
        recompute: bool = False,
        classes: Sequence[str] = (),
    ):
        super().__init__()
        _check(networks, shared)
        self.shared = shared
        self.recompute = recompute
        self.classes = tuple(classes)
        self.channels = [network.channels for network in networks]
        self.reductions = [network.reductions for network in networks]
        self.layouts = [network.layouts for network in networks]
        self.names = [network.names for network in networks]
        self.architectures = [network.architecture for network in networks]
        self.num_classes = networks[0].num_classes
        self.trunk = networks[0].stages[:shared]
        self.branches = nn.ModuleList(network.stages[shared:] for network in networks)
        self.heads = nn.ModuleList(network.head for network in networks)
        self.own: int | None = None
        self._facts: dict[Hashable, Any] = {}  # of tensors that processes exchange

    def __len__(self) -> int:
        return len(self.heads)

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        """Peer k sees `views[k % len(views)]`."""
        if isinstance(views, Tensor):
            raise InputError("views is one tensor: give a list of views, such as [images]")
        if self.own is not None:
            return self._one_of_all(self.own, views)
        trunks = [self._after_each(self.trunk, [view]) for view in views]
        stages = [
            self._after_each(branch, trunks[k % len(views)])  # type: ignore[arg-type]
            for k, branch in enumerate(self.branches)
        ]
        logits = torch.stack([head(x[-1]) for head, x in zip(self.heads, stages, strict=True)])
        several = {"ensemble": logits.mean(dim=0)} if len(self) > 1 else {}
        maps = [self._maps(k, returned) for k, returned in enumerate(stages)]
        split = [trunk[-1] for trunk in trunks] if self.shared else []
        return Outputs(logits, maps, several, split)

    def keep_one(self, k: int) -> dict[int, tuple[nn.Module, nn.Module]]:
        """Leaves peer k alone here, and returns branches and heads of the others by number.

        Forward passes are then those of all processes of a circle together, and the outputs are
        those of all peers. There is no trunk.
        """
        others = {
            j: (branch, head)
            for j, (branch, head) in enumerate(zip(self.branches, self.heads, strict=True))
            if j != k
        }
        self.put_back({j: (nn.ModuleList(), Elsewhere()) for j in others})
        self.own = k
        return others

    def put_back(self, parts: Mapping[int, tuple[nn.Module, nn.Module]]) -> None:
        """Branches and heads of peers, in the places of those that are there."""
        for j, (branch, head) in parts.items():
            self.branches[j], self.heads[j] = branch, head
        self.own = None

    def _one_of_all(self, k: int, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        """The outputs of all peers, of which this process computes those of peer k."""
        images = [views[j % len(views)] for j in range(len(self))]
        with own_random_numbers(k, images[k].device, self.training):
            returned = self._after_each(self.branches[k], [images[k]])  # type: ignore[arg-type]
            z_k = self.heads[k](returned[-1])
        exchange = Exchange(self._facts, images[k])
        logits = torch.stack(
            exchange("logits", {j: z_k if j == k else None for j in range(len(self))})
        )
        maps = {k: self._maps(k, returned)}
        stages = [
            Maps(j, maps.get(j, [image]), len(self.channels[j]), exchange)
            for j, image in enumerate(images)
        ]
        return Outputs(logits, stages, {"ensemble": logits.mean(dim=0)})

    def student(self, k: int) -> Network:
        """Peer k as a network of its own, with its own weights."""
        if not 0 <= k < len(self):
            raise InputError(f"there is no peer {k}: the peers are 0 to {len(self) - 1}")
        network = Network(
            [*self.trunk, *self.branches[k]],
            self.channels[k],
            self.reductions[k],
            self.num_classes,
            self.heads[k],
            self.layouts[k],
            self.names[k],
        )
        return network.clone().requires_grad_(True).train(self.training)

    def compile_stages(self, **options: Any) -> None:
        """Compiles every stage by `torch.compile(**options)`, as a whole; equal ones once.

        Weights keep their names. Copies, such as `student`, are not compiled, nor is what is
        evaluated where that is a copy (see `folding.py`).
        """
        codes: dict[str, CodeType] = {}
        for stage in (stage for part in (self.trunk, *self.branches) for stage in part):
            # PyTorch compiles at most 8 versions of a function's code and then, silently, none:
            # only stages that are alike share theirs.
            call = _call_of(stage)
            own = call.__code__.replace(co_name=f"stage{len(codes)}")
            call.__code__ = codes.setdefault(repr(_structure(stage)), own)
            # The attribute that `Module.compile` sets; no copy takes it along.
            stage._compiled_call_impl = torch.compile(call, **options)

    def _maps(self, k: int, returned: list[Any]) -> list[Tensor]:
        """The image, and the outputs of peer k's stages as feature maps."""
        image, *rest = returned
        size = image.shape[2], image.shape[3]
        facts = zip(rest, self.layouts[k], self.reductions[k], strict=True)
        return [image, *(as_map(x, layout, reduction, size) for x, layout, reduction in facts)]

    def _after_each(self, stages: Iterable[nn.Module], returned: list[Any]) -> list[Any]:
        """`returned`, followed by the output of each stage, which reads the one before it."""
        again = self.recompute and self.training and torch.is_grad_enabled()
        returned = list(returned)
        for stage in stages:
            x = returned[-1]
            returned.append(run_and_forget(stage, x) if again else stage(x))
        return returned


def _call_of(stage: nn.Module) -> Any:
    """What `stage.compile()` compiles, in a function of ours.

    PyTorch does not compile the code of its own modules: of an `nn.Sequential` it would compile the
    parts, each alone, at best.
    """
    return lambda x: stage._call_impl(x)


def _check(networks: Sequence[Network], shared: int) -> None:
    if not networks:
        raise InputError("peers need at least one network")
    fewest = min(len(network.stages) for network in networks)
    if not 0 <= shared <= fewest:
        raise InputError(f"shared is {shared}: these networks have {fewest} stages, give 0 to that")

    first = networks[0]
    seen: dict[int, int] = {}
    for k, network in enumerate(networks):
        if network.num_classes != first.num_classes:
            raise InputError(
                f"network 0 has {first.num_classes} classes and network {k} has "
                f"{network.num_classes}: peers need the same classes"
            )
        for parameter in network.parameters():
            if seen.setdefault(id(parameter), k) != k:
                raise InputError(
                    f"networks {seen[id(parameter)]} and {k} hold the same weights: build one for "
                    "each peer, or give network.clone()"
                )
        if shared and "tapped" in network.layouts:
            raise InputError(
                f"network {k} runs as a whole and cannot be cut, so it shares nothing: use shared=0"
            )
        for s in range(shared):
            if _structure(network.stages[s]) != _structure(first.stages[s]):
                raise InputError(
                    f"stage {s} of network {k} differs from that of network 0, so it cannot be "
                    f"shared: use shared <= {s}, or networks of one architecture"
                )


def _structure(stage: nn.Module) -> list[tuple[str, str, object]]:
    """What equal stages agree in: modules with their settings, and the shapes of weights."""
    leaves = [(n, type(m).__qualname__, m.extra_repr()) for n, m in stage.named_modules()]
    weights = [(n, "weight", tuple(t.shape)) for n, t in stage.state_dict().items()]
    return [*leaves, *weights]
