"""Worker processes that call a function on many keys, reading ahead. Results come in order.

PyTorch's DataLoader does the work. This file adds:

- Workers come from a fork server, because a process that has threads (PyTorch, a progress bar) or
  an open GPU must not fork. They end when this process ends, however it ends, and ignore signals to
  all processes of a job, such as Ctrl-C: the training needs them until its checkpoint is written.
  So what asks one to end by SIGTERM, as Python does at its exit before it waits, kills it instead.
- No random numbers of this process are drawn.
- A worker that dies or reports an error gives one line.
- On Linux, results are passed in memory without a name (memfd), through a file that is closed at
  once. So neither the 64 MB of /dev/shm in a container nor the limit of open files is in the way.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, popen_forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from codistill.errors import InputError
from codistill.signals import ENDING, held_back

_AHEAD = 2  # results that each worker makes in advance
_PRELOAD = ["codistill.data.batches.streamed", "codistill.data.check", "PIL.Image"]


def available_cores() -> int:
    """The number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


class Workers:
    """Calls `work(key)` for every key of a sequence, for one sequence after the other.

    Args:
        work: picklable function. It returns a tuple, whose uint8 arrays arrive as tensors.
        workers: number of processes; 0: this process calls it. A program that asks for processes
            must begin under `if __name__ == "__main__":`, as always with multiprocessing.
        pin: GPU for which tensors lie in pinned memory, or None. It need not be the current one,
            on which PyTorch would pin them, and open a context there that nobody uses.
        keep: whether the processes wait for further keys, or end after the last one.
    """

    def __init__(
        self,
        work: Callable[[Any], Any],
        workers: int,
        pin: torch.device | None = None,
        keep: bool = False,
    ):
        self._keys = _Keys()
        self._pin = pin
        pinned = pin is not None
        self._loader = _make_loader(_Calls(work, workers > 0), self._keys, workers, pinned, keep)

    def __call__(self, keys: Sequence[Any]) -> Iterator[Any]:
        """The results, in the order of the keys. Raises the InputError or OSError of `work`.

        Raises:
            ChildProcessError: a worker has died.
        """
        self._keys.present = keys
        begun = False
        if self._loader.num_workers:
            _start_fork_server()
        try:
            for result in self._start():
                begun = True
                if isinstance(result, Exception):
                    raise result
                yield result
        except RuntimeError as error:
            if "DataLoader worker" not in str(error) or "exited unexpectedly" not in str(error):
                raise
            raise ChildProcessError(_why_died(begun)) from error

    def _start(self) -> Iterator[Any]:
        with contextlib.nullcontext() if self._pin is None else torch.cuda.device(self._pin):
            return iter(self._loader)  # which starts the thread that pins


def _why_died(begun: bool) -> str:
    """What a worker most probably died of.

    Args:
        begun: whether a result has come.
    """
    command = "codistill.command.main" in sys.modules
    option = "--data.workers" if command else "workers"
    file = Path(getattr(sys.modules["__main__"], "__file__", None) or "<stdin>")
    guarded = file.is_file() and "__name__" in file.read_text(encoding="utf-8", errors="replace")
    if begun or guarded or command:
        return (
            "a process that reads images died, most often because memory ran out: give fewer of "
            f"them by {option}"
        )
    return (
        "the processes that read images could not start, because each runs your program's file "
        f'again: put what {file} does under `if __name__ == "__main__":`, or leave out {option}'
    )


class _Keys:
    """The present keys: the loader is made once, and goes through them again and again."""

    present: Sequence[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.present)

    def __len__(self) -> int:
        return len(self.present)


class _Calls(Dataset[Any]):
    """The function in the form of a data set, as DataLoader wants it."""

    def __init__(self, work: Callable[[Any], Any], travels: bool):
        self.work = work
        self.wrap = _Parcel if travels and hasattr(os, "memfd_create") else torch.from_numpy

    def __getitem__(self, key: Any) -> Any:
        try:
            result = self.work(key)
        except (InputError, OSError, MemoryError) as error:
            return error  # DataLoader would put the traceback into the message
        return tuple(self.wrap(x) if isinstance(x, np.ndarray) else x for x in result)


class _Parcel:
    """An array that becomes a tensor on its way to another process."""

    def __init__(self, array: np.ndarray):
        self.array = np.ascontiguousarray(array, np.uint8)

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[object, ...]]:
        file = os.memfd_create("codistill")
        try:
            with open(file, "wb", closefd=False) as memory:
                memory.write(self.array.data)
            return _unpack, (DupFd(file), self.array.shape)
        finally:
            os.close(file)


def _unpack(sent: Any, shape: tuple[int, ...]) -> Tensor:
    file, size = sent.detach(), math.prod(shape)
    try:
        if not size:
            return torch.empty(shape, dtype=torch.uint8)
        # Unlike mmap.mmap, this does not keep the file open as long as the tensor lives.
        path = f"/proc/self/fd/{file}"
        return torch.from_file(path, shared=True, size=size, dtype=torch.uint8).view(shape)
    finally:
        os.close(file)


def _make_loader(
    calls: _Calls, keys: _Keys, workers: int, pin: bool, keep: bool
) -> DataLoader[Any]:
    with warnings.catch_warnings():  # it warns of more workers than cores
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        return DataLoader(
            calls,
            batch_size=None,
            sampler=keys,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin,
            multiprocessing_context=_context() if workers else None,
            prefetch_factor=_AHEAD if workers else None,
            persistent_workers=keep and workers > 0,
            worker_init_fn=_begin,
            generator=torch.Generator(),  # else DataLoader draws from the global one
        )


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = _Context()
    context.set_forkserver_preload(_PRELOAD)
    return context


class _Popen(popen_forkserver.Popen):
    def terminate(self) -> None:
        self.kill()


class _Process(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> popen_forkserver.Popen:
        return _Popen(process_obj)


class _Context(ForkServerContext):
    Process = _Process


def _start_fork_server() -> None:
    """Starts the fork server out of reach of signals, if the system has one and it does not run."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        resource_tracker.ensure_running()  # by itself, since it would let the signals through
        with held_back():
            forkserver.ensure_running()


def _as_it_is(result: Any) -> Any:
    return result


def _begin(_: int) -> None:
    """The first thing that a worker does."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
