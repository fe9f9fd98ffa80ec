"""Several processes that train one method together, each on its piece of every batch.

They run the same program and talk by plain `torch.distributed`: NCCL between GPUs, gloo between
CPUs. A method knows nothing of them. Without `joined`, or with one process, every function here
returns at once and changes nothing.

All processes are one team, unless `divide` makes a team for each peer: its processes train that
peer, each on its piece of every batch. A circle is then one process of each team, all with the same
piece: they exchange what their peers compute.
"""

import contextlib
import datetime
import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from codistill.errors import InputError, reason

_LONGEST_WAIT = datetime.timedelta(minutes=30)  # for a process that reads data or writes weights
_FIRST_PORT, _PORTS = 20_000, 20_000  # one of them for each SLURM job
_T = TypeVar("_T")


class Place(NamedTuple):
    """The place of a process among those of a training.

    Attributes:
        rank: its number, from 0.
        size: number of processes.
        local_rank: its number on its machine.
        local_size: number of processes on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


class Group(NamedTuple):
    """The place of this process in a group of processes.

    Attributes:
        rank: its number in the group, from 0.
        size: number of processes in the group.
        handle: the group, as `torch.distributed` takes it; None: all processes.
    """

    rank: int = 0
    size: int = 1
    handle: Any = None


class _Division(NamedTuple):
    peers: int
    team: Group
    circle: Group


_place = Place()
_division: _Division | None = None


def rank() -> int:
    """The number of this process, from 0; the first one writes files and lines."""
    return _place.rank


def size() -> int:
    """The number of processes that train together."""
    return _place.size


def place() -> Place:
    """The place of this process."""
    return _place


def team() -> Group:
    """The processes with the same peers; each has its piece of every batch."""
    return _division.team if _division else Group(_place.rank, _place.size)


def divide(peers: int) -> int:
    """Divides the processes into a team for each peer, and returns the peer of this one.

    Neighbours are in one team. All processes call it; their number is a multiple of `peers`.
    """
    global _division
    r, W = _place.rank, _place.size
    G = W // peers
    if _division is None or _division.peers != peers:
        teams, circles = [None] * peers, [None] * G
        if G > 1:  # else a team is one process, and the circle is all
            teams = [dist.new_group(list(range(k * G, k * G + G))) for k in range(peers)]
            circles = [dist.new_group(list(range(g, W, G))) for g in range(G)]
        own = Group(r % G, G, teams[r // G]), Group(r // G, peers, circles[r % G])
        _division = _Division(peers, *own)
    return r // G


def launched() -> Place:
    """The place that torchrun, or srun of SLURM, gave to this process.

    Raises:
        InputError: the variables of the launcher are no numbers, or some are missing.
    """
    if os.environ.get("WORLD_SIZE") and os.environ.get("RANK"):
        names = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
    elif os.environ.get("SLURM_STEP_NUM_TASKS"):
        names = "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"
    else:
        return Place()
    try:  # SLURM_STEP_TASKS_PER_NODE is "4(x2),3"
        return Place(*(int(os.environ[name].split("(")[0].split(",")[0]) for name in names))
    except (KeyError, ValueError) as error:
        raise InputError(
            f"the launcher's variables {', '.join(names)} have to be numbers ({reason(error)}): "
            "start by torchrun or srun"
        ) from error


@contextlib.contextmanager
def joined() -> Iterator[Place]:
    """Within it, this process trains together with the others that a launcher started.

    If one process fails, all end; the first one to fail raises its error, and the others end
    without a word, by SystemExit(1).

    Raises:
        InputError: the launcher's variables do not suit each other.
        ConnectionError: another process has ended, or does not answer.
    """
    global _place, _division
    at = launched()
    if at.size == 1:
        yield at
        return
    if not dist.is_available():
        raise InputError(f"this PyTorch ({torch.__version__}) is built without torch.distributed")
    # Imported before the group exists, which its default arguments would keep for ever: the threads
    # of gloo would then free tensors while the interpreter ends, which aborts the process.
    importlib.import_module("torch.distributed.nn.functional")
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if not os.environ.get("MASTER_ADDR"):
        _find_first()
    os.environ |= {"RANK": str(at.rank), "WORLD_SIZE": str(at.size)}
    on_gpus = torch.cuda.is_available()
    with _talking():
        store, _, _ = next(iter(rendezvous("env://", timeout=_LONGEST_WAIT)))
        backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
        store = PrefixStore("codistill", store)
        dist.init_process_group(
            backend, store=store, rank=at.rank, world_size=at.size, timeout=_LONGEST_WAIT
        )
    _place = at
    try:
        yield at
        wait_for_all()
        dist.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:
        first = _is_first_to_fail(store)  # before the others notice
        if not on_gpus:  # NCCL would wait for what the others no longer do
            dist.destroy_process_group()
        if not first:
            raise SystemExit(1) from error
        raise
    finally:
        _place, _division = Place(), None


def _find_first() -> None:
    """Sets the address of the first process, which srun does not, from the nodes of the job."""
    first = re.match(r"([^\[,]+)(?:\[(\d+))?", os.environ.get("SLURM_STEP_NODELIST", "localhost"))
    job, step = (os.environ.get(f"SLURM_{name}_ID", "0") for name in ("JOB", "STEP"))
    os.environ["MASTER_ADDR"] = "".join(part or "" for part in first.groups()) if first else ""
    os.environ.setdefault("MASTER_PORT", str(_FIRST_PORT + (int(job) + int(step)) % _PORTS))


def _is_first_to_fail(store: Any) -> bool:
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:  # the process that keeps the store has ended and said why
        return False


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(
            "another process of this training has ended, or does not answer: see what it, or the "
            f"launcher, says ({reason(error)})"
        ) from error


def piece(images: int, unit: int = 1) -> range:
    """The places of this process's images, of a batch of so many.

    Pieces follow one another, and differ by one unit at most. Of a batch with fewer than two images
    for each process every process computes the whole, which has the same gradient.

    Args:
        images: number of images in the batch.
        unit: number of images that have to stay together.
    """
    r, W, _ = team()
    unit = max(1, unit)
    units = images // unit
    if W == 1 or images < 2 * W or units < W:
        return range(images)
    stop = images if r == W - 1 else unit * (units * (r + 1) // W)
    return range(unit * (units * r // W), stop)


@torch.no_grad()
def add_up(tensors: Sequence[Tensor]) -> None:
    """Replaces every tensor by its sum over the team; all give the same shapes."""
    if team().size > 1:
        start_adding_up(tensors)()


@torch.no_grad()
def start_adding_up(tensors: Sequence[Tensor]) -> Callable[[], None]:
    """Begins what `add_up` does, and returns a function that ends it.

    What is computed in between does not wait. Copies travel: the end overwrites what the tensors
    have become in between.
    """
    handle = team().handle
    return _start(tensors, lambda flat: dist.all_reduce(flat, group=handle, async_op=True))


@torch.no_grad()
def add_up_peers(tensors: Sequence[Tensor]) -> None:
    """Replaces every tensor by its sum over the circle, where each process has another peer."""
    assert _division
    handle = _division.circle.handle
    _in_one_message(tensors, lambda flat: dist.all_reduce(flat, group=handle))


def exchange(tensors: Mapping[int, Tensor]) -> None:
    """Overwrites the tensor of each peer by that of the process of this circle that has the peer.

    Args:
        tensors: contiguous tensors by peer, of the same shapes in all processes of the circle.
    """
    assert _division
    team, circle = _division.team, _division.circle
    with _talking():
        sent = [
            dist.broadcast(x, k * team.size + team.rank, circle.handle, async_op=True)
            for k, x in tensors.items()
        ]
        for work in sent:
            work.wait()


def of_peer(k: int, value: _T) -> _T:
    """The value of the process of this circle that has peer k."""
    assert _division
    team, circle = _division.team, _division.circle
    values = [value]
    with _talking():
        dist.broadcast_object_list(values, k * team.size + team.rank, circle.handle)
    return values[0]


def sum_gradients(weights: Iterable[Tensor]) -> None:
    """Replaces the gradients of weights by their sums over all processes, for loops of your own.

    `minimize` does so itself within `joined`. Call this in place of a wrapper such as
    DistributedDataParallel, after the last backward pass and before the optimizer's step. Each
    process multiplies its loss by its share of the batch before. It works in any process group of
    `torch.distributed`. A weight without a gradient has to have none in all processes.
    """
    if dist.is_available() and dist.is_initialized():
        with torch.no_grad():
            _in_one_message([w.grad for w in weights if w.grad is not None], dist.all_reduce)


@torch.no_grad()
def take_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrites every tensor by that of the first process."""
    if _place.size == 1:
        return
    _in_one_message(tensors, lambda flat: dist.broadcast(flat, 0))


def _in_one_message(tensors: Iterable[Tensor], send: Callable[[Tensor], object]) -> None:
    """Overwrites tensors by what `send` makes of them, laid end to end: one message a kind."""
    _start(tensors, send)()


def _start(tensors: Iterable[Tensor], send: Callable[[Tensor], Any]) -> Callable[[], None]:
    """Sends copies, and returns a function that waits for them and overwrites the tensors.

    Args:
        tensors: what is sent, one message a kind.
        send: sends a vector, and returns a `Work` to wait for, or None after the end.
    """
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    sent = []
    for group in kinds.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        with _talking():
            sent.append((group, flat, send(flat)))

    @torch.no_grad()
    def finish() -> None:
        for group, flat, work in sent:
            if work is not None:
                with _talking():
                    work.wait()
            parts = flat.split([tensor.numel() for tensor in group])
            torch._foreach_copy_(
                group, [x.view(tensor.shape) for x, tensor in zip(parts, group, strict=True)]
            )

    return finish


def of_all(value: _T) -> list[_T]:
    """The values of all processes, in the order of their numbers. Tensors travel as they are."""
    return _of_group(value, Group(_place.rank, _place.size))


def _of_group(value: _T, group: Group) -> list[_T]:
    if group.size == 1:
        return [value]
    values: list[Any] = [None] * group.size
    with _talking():
        dist.all_gather_object(values, value, group.handle)
    return values


def at_first(value: _T) -> list[_T]:
    """The values of all processes in the first one; nothing in the others."""
    if _place.size == 1:
        return [value]
    values: list[Any] | None = None if _place.rank else [None] * _place.size
    with _talking():
        dist.gather_object(value, values)
    return values or []


def of_first(value: _T) -> _T:
    """The value of the first process."""
    if _place.size == 1:
        return value
    values = [value]
    with _talking():
        dist.broadcast_object_list(values, 0)
    return values[0]


def dealt_out(values: Sequence[_T]) -> list[_T]:
    """What a team made of the batches 0, W, ...; 1, W + 1, ...; in the order of the batches."""
    nothing = object()
    rounds = zip_longest(*_of_group(values, team()), fillvalue=nothing)
    return [value for value in chain.from_iterable(rounds) if value is not nothing]


def wait_for_all() -> None:
    """Returns when all processes have come here."""
    if _place.size > 1:
        _in_one_message([torch.zeros(())], dist.all_reduce)


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through the block, and then the others do."""
    if _place.rank:
        wait_for_all()
    yield
    if not _place.rank:
        wait_for_all()


def agreed(ask: Callable[[], bool]) -> Callable[[], bool]:
    """A question that all processes answer alike: yes as soon as one of them would.

    All of them have to ask equally often. The answer comes with the next question, so that nobody
    waits for another.
    """
    return ask if _place.size == 1 or isinstance(ask, _Agreed) else _Agreed(ask)


class _Agreed:
    def __init__(self, ask: Callable[[], bool]):
        self._ask = ask
        self._sent: tuple[Tensor, Any] | None = None

    def __call__(self) -> bool:
        answer = torch.tensor(float(self._ask()))
        before = self._sent
        with _talking():
            work = dist.all_reduce(answer, dist.ReduceOp.MAX, async_op=True)
            self._sent = answer, work
            if before is None:
                return False
            before[1].wait()
        return bool(before[0])


def require_equal(module: nn.Module, when: str) -> None:
    """Raises RuntimeError if weights that several processes have are not the same, to a bit.

    Args:
        module: the module, whose weights and buffers are looked at.
        when: the time, for the message.
    """
    if _place.size == 1:
        return
    real = {name: x for name, x in module.state_dict().items() if x.is_floating_point()}
    sums = torch.stack([x.double().sum() for x in real.values()]).cpu().view(torch.int64)
    found: dict[str, int] = {}  # as whole numbers, since NaN has to equal itself
    for of_one in of_all(dict(zip(real, sums.tolist(), strict=True))):
        if any(found.setdefault(name, total) != total for name, total in of_one.items()):
            raise RuntimeError(
                f"the weights of the {_place.size} processes are not the same {when}: a step of "
                "the method does something else in each of them, such as drawing random numbers "
                "outside of its losses"
            )
