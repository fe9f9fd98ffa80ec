"""Peers on different processes: each has one peer, and the method's other modules.

A team of processes has each peer (`codistill.distributed.divide`). Every process computes the same
losses, of the outputs of all peers, and moves what it has: its peer, and the other modules, whose
gradients are the same everywhere. The first process brings all peers together when they are saved.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from codistill import distributed
from codistill.errors import InputError
from codistill.methods.method import Method
from codistill.networks.peers import Peers

Where = Literal["data", "peers"]
"""What processes divide: the images of every batch, or the peers."""

_Parts = dict[int, tuple[nn.Module, nn.Module]]


def require_division(method: Method) -> None:
    """Raises InputError if the peers of a method cannot be divided among the processes."""
    name, K, W = type(method).__name__, len(method.peers), distributed.size()
    leave_out = "leave out --placement peers, and each process takes a piece of every batch"
    if method.peers.shared:
        raise InputError(
            f"{name}'s peers share their first stages (shared is {method.peers.shared}), which "
            f"cannot be in several processes at once: {leave_out}; or give --shared 0, if the "
            "method allows it"
        )
    if method.reads_weights:
        raise InputError(
            f"{name} reads the weights of other peers ({method.reads_weights}), and processes "
            f"exchange outputs alone: {leave_out}; or turn that off"
        )
    if K == 1:
        raise InputError(f"there is one peer, so there is nothing to divide: {leave_out}")
    if W == 1:
        raise InputError(
            f"--placement peers puts {K} peers into {K} processes, and there is one: start with "
            f"torchrun --nproc-per-node {K}, or leave it out"
        )
    if W % K:
        raise InputError(
            f"--placement peers puts {K} peers into {K} processes, or a multiple, and there are "
            f"{W}: start {K}; or {leave_out}"
        )


class Placement:
    """The division of a method's peers among the processes. It changes method and optimizers.

    Copies of the peers within the method are divided alike.

    Args:
        method: the method, the same in all processes.
        optimizers: its optimizers by name, of the weights of all peers.

    Raises:
        InputError: see `require_division`.
    """

    def __init__(self, method: Method, optimizers: Mapping[str, Optimizer]):
        require_division(method)
        self.own = distributed.divide(len(method.peers))
        self._names = list(method.state_dict())
        self._copies = [
            name
            for name, module in method.named_modules()
            if isinstance(module, Peers) and not module.shared and len(module) == len(method.peers)
        ]
        weights = {
            name: [group["params"] for group in optimizer.param_groups]
            for name, optimizer in optimizers.items()
        }
        self._away: dict[str, _Parts] = {}
        for name in self._copies:
            others = _peers(method, name).keep_one(self.own)
            if not distributed.rank():  # which will need them
                self._away[name] = {j: (b.cpu(), h.cpu()) for j, (b, h) in others.items()}
        here = {*method.parameters()}
        of_peer = {x for name in self._copies for x in _peers(method, name).parameters()}
        self._weights = {
            optimizers[name]: _Weights(groups, here, of_peer) for name, groups in weights.items()
        }
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["params"] = [w for w in group["params"] if w in here]
            for weight in optimizer.state.keys() - here:  # Adagrad makes its state at once
                del optimizer.state[weight]

    def is_of_peer(self, name: str) -> bool:
        """Whether a tensor is one of a peer, which other processes do not have; by its name."""
        return any(_plain(name).startswith(f"{copy}.") for copy in self._copies)

    @contextlib.contextmanager
    def whole(self, method: Method) -> Iterator[None]:
        """Within it the first process has all peers of a method, or of an average of it."""
        tensors = self.gathered(method)
        if distributed.rank():
            yield
            return
        others = {name: x for name, x in tensors.items() if name not in method.state_dict()}
        for name in self._copies:
            _peers(method, name).put_back(self._away[name])
        method.load_state_dict(others, strict=False)
        try:
            yield
        finally:
            for name in self._copies:
                _peers(method, name).keep_one(self.own)

    def gathered(self, module: nn.Module) -> dict[str, Any]:
        """The state of a method, or of an average of it, with all peers; for the first process."""
        state = module.state_dict()
        sent = {name: x.cpu() for name, x in state.items() if self.is_of_peer(name)}
        for others in _of_teams(sent)[1:]:
            state |= others
        order = {name: i for i, name in enumerate(self._names)}
        return {n: state[n] for n in sorted(state, key=lambda n: order.get(_plain(n), -1))}

    def gathered_optimizer(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state of an optimizer of the weights of all peers; for the first process."""
        state, weights = optimizer.state_dict(), self._weights[optimizer]
        sent = {weights.here[i]: _on_cpu(of) for i, of in state["state"].items()}
        of_all: dict[int, Any] = {}
        for of_team in reversed(_of_teams(sent)):
            of_all |= of_team
        groups = [
            group | {"params": list(params)}
            for group, params in zip(state["param_groups"], weights.groups, strict=True)
        ]
        return {"state": dict(sorted(of_all.items())), "param_groups": groups}

    def local_optimizer(self, optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
        """Of the state of an optimizer of all weights what this process has."""
        of_all, here = state["state"], self._weights[optimizer].here
        own = {i: of_all[place] for i, place in enumerate(here) if place in of_all}
        groups = [
            group | {"params": now["params"]}
            for group, now in zip(
                state["param_groups"], optimizer.state_dict()["param_groups"], strict=True
            )
        ]
        return {"state": own, "param_groups": groups}

    @torch.no_grad()
    def norm(self, optimizer: Optimizer, like: Tensor) -> Float[Tensor, ""]:
        """The norm of the gradient of all weights of an optimizer, those of other peers too."""
        weights = self._weights[optimizer]
        own = [w.grad for group in optimizer.param_groups for w in group["params"]]
        pairs = [
            (place, gradient)
            for place, gradient in zip(weights.here, own, strict=True)
            if gradient is not None and (self.own == 0 or place not in weights.common)
        ]
        norms = like.new_zeros(weights.total)
        if pairs:
            places, gradients = zip(*pairs, strict=True)
            norms[list(places)] = torch.stack(torch._foreach_norm(gradients))
        distributed.add_up_peers([norms])
        return torch.linalg.vector_norm(norms)

    @torch.no_grad()
    def spread_overflow(self, optimizer: Optimizer, like: Tensor) -> None:
        """Makes a gradient here infinite or not a number if one of another peer is."""
        own = [w.grad for group in optimizer.param_groups for w in group["params"]]
        gradients = [gradient for gradient in own if gradient is not None]
        largest = torch._foreach_norm(gradients, math.inf) if gradients else [like.new_zeros(())]
        nothing = 0 * torch.stack(list(largest)).sum()  # or NaN
        distributed.add_up_peers([nothing])
        for gradient in gradients[:1]:
            gradient.add_(nothing)


class _Weights:
    """The weights of an optimizer by number, those of all peers.

    Attributes:
        groups: numbers of each group.
        here: numbers of those that this process has.
        common: numbers of those that every process has.
        total: their number.
    """

    def __init__(self, groups: Sequence[Sequence[Tensor]], here: Set[Tensor], of_peer: Set[Tensor]):
        numbered = list(enumerate(itertools.chain(*groups)))
        self.here = [i for i, w in numbered if w in here]
        self.common = {i for i, w in numbered if w in here and w not in of_peer}
        self.total = len(numbered)
        ends = list(itertools.accumulate(map(len, groups), initial=0))
        self.groups = [range(*pair) for pair in itertools.pairwise(ends)]


def _peers(method: nn.Module, name: str) -> Peers:
    return method.get_submodule(name)  # type: ignore[return-value]


def _plain(name: str) -> str:
    """The name of a method's tensor, also in an average of the method."""
    return name.removeprefix("module.")


def _of_teams(value: Any) -> list[Any]:
    """What the first process of each team gives, for the first of all."""
    every = distributed.at_first(None if distributed.team().rank else value)
    return [of_one for of_one in every if of_one is not None]


def _on_cpu(of_weight: Mapping[str, Any]) -> dict[str, Any]:
    return {n: x.cpu() if isinstance(x, Tensor) else x for n, x in of_weight.items()}
