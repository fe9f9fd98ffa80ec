"""Peers of which every process has one, and how what they compute reaches the others.

A tensor of a peer elsewhere is a constant here: its gradient belongs to the process that has the
peer, which computes the same losses. So nothing is sent in the backward pass.
"""

import contextlib
import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from codistill import distributed
from codistill.errors import InputError


class Elsewhere(nn.Module):
    """The place of a head that another process has."""

    def forward(self, *_: Any) -> Tensor:
        raise InputError(
            "the method calls a part of a peer that another process has: give --placement data, or "
            "let the method read outputs of the peers alone"
        )


class Exchange:
    """Sends tensors of peers for a batch; the processes of a circle ask for the same, in one order.

    Args:
        facts: shapes, strides and types of tensors that were sent before; new ones are added.
        image: a view of the batch.
    """

    def __init__(self, facts: dict[Hashable, Any], image: Tensor):
        self._facts = facts
        device = image.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        self._kind = tuple(image.shape), image.dtype, low
        self._device = image.device

    def __call__(self, what: Hashable, tensors: dict[int, Tensor | None]) -> list[Tensor]:
        """Tensors of peers by number, of which this process has one or none; here all are there."""
        if _replay is not None:
            return [_replayed(x, _replay) for x in tensors.values()]
        sent = {k: self._room(what, k, x) for k, x in tensors.items()}
        distributed.exchange({k: _flat(x) for k, x in sent.items()})
        if _record is not None:
            _record.extend(sent.values())
        return [sent[k] if x is None else x for k, x in tensors.items()]

    def _room(self, what: Hashable, k: int, x: Tensor | None) -> Tensor:
        """The tensor to send, or room for that of another process, laid out in the same way."""
        if x is not None:
            x = x.detach()
            channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
            x = x if channels_last else x.contiguous()
        key = what, k, *self._kind
        if key not in self._facts:
            self._facts[key] = distributed.of_peer(k, x is not None and _layout(x))
        if x is not None:
            return x
        shape, stride, dtype = self._facts[key]
        return torch.empty_strided(shape, stride, dtype=dtype, device=self._device)


def _layout(x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], torch.dtype]:
    return tuple(x.shape), x.stride(), x.dtype


def _flat(x: Tensor) -> Tensor:
    return x.as_strided((x.numel(),), (1,))


class Maps(Sequence[Tensor]):
    """The maps of a peer as `Outputs.stages` has them, each exchanged when it is first read.

    Args:
        k: the peer.
        maps: its image and, if it is here, its maps.
        stages: number of its stages.
        exchange: sends what is read.
    """

    def __init__(self, k: int, maps: list[Tensor], stages: int, exchange: Exchange):
        self._k, self._exchange = k, exchange
        self._maps: list[Tensor | None] = [*maps, *[None] * (stages + 1 - len(maps))]
        self._sent = {0}  # every process has the image

    def __len__(self) -> int:
        return len(self._maps)

    @overload
    def __getitem__(self, s: int) -> Tensor: ...
    @overload
    def __getitem__(self, s: slice) -> list[Tensor]: ...
    def __getitem__(self, s: int | slice) -> Tensor | list[Tensor]:
        if isinstance(s, slice):
            return [self[i] for i in range(len(self))[s]]
        s = range(len(self))[s]
        if s not in self._sent:
            (self._maps[s],) = self._exchange(s, {self._k: self._maps[s]})
            self._sent.add(s)
        x = self._maps[s]
        assert x is not None
        return x

    def averaged(self) -> Tensor:
        """The last map, averaged over space, (B, D): less to send than the map."""
        x = self._maps[-1]
        return self._exchange("averaged", {self._k: None if x is None else x.mean(dim=(2, 3))})[0]


@contextlib.contextmanager
def own_random_numbers(k: int, device: torch.device, training: bool) -> Iterator[None]:
    """Peer k draws random numbers of its own; those of the processes stay alike besides."""
    if not training:
        yield
        return
    seed = int(torch.randint(2**62, ()))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed + k)
        yield


# What was exchanged, to run a forward pass again in this process alone.
_record: list[Tensor] | None = None
_replay: Iterator[Tensor] | None = None


def _replayed(x: Tensor | None, received: Iterator[Tensor]) -> Tensor:
    other = next(received)
    return other if x is None else x


@contextlib.contextmanager
def recorded() -> Iterator[list[Tensor]]:
    """Yields a list of what is exchanged within, in order."""
    global _record
    _record = []
    try:
        yield _record
    finally:
        _record = None


@contextlib.contextmanager
def replayed(tensors: list[Tensor]) -> Iterator[None]:
    """Within it nothing is exchanged: each whole pass finds these tensors, in order."""
    global _replay
    _replay = itertools.cycle(tensors)
    try:
        yield
    finally:
        _replay = None
