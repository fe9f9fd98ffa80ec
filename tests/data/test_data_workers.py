"""Workers give what the process itself would give, and leave nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_fakes import photos, plain
from torch.utils.data import DataLoader

from codistill.data import (
    CropAugmentation,
    Normalisation,
    StreamedEvalBatches,
    StreamedTrainBatches,
)
from codistill.data.batches.workers import Workers
from codistill.errors import InputError
from codistill.signals import ENDING

AS_IT_IS = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def square(key):
    """What a worker of these tests does."""
    if key == "refuse":
        raise InputError("no such key")
    if key == "full":
        raise OSError(24, "Too many open files")
    if key == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if key == "nothing":
        return (key, np.empty((0, 2), np.uint8))
    return (key, np.full((3, 2), key * key, np.uint8), os.getpid())


def values(results):
    return [(key, array[0, 0].item()) for key, array, _ in results]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("photos"), 14)


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.labels, b.labels) and all(map(torch.equal, a.views, b.views))
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_the_order_of_the_keys(workers):
    calls = Workers(square, workers)
    results = list(calls(range(9)))
    assert values(results) == [(i, i * i) for i in range(9)]
    assert len({pid for _, _, pid in results}) == max(1, workers)
    assert (os.getpid() in {pid for _, _, pid in results}) == (workers == 0)
    ((_, empty),) = calls(["nothing"])
    assert empty.shape == (0, 2)


def shielded(key):
    """Whether each signal is ignored here, and whether each is held back from here."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    ignored = [signal.getsignal(number) == signal.SIG_IGN for number in ENDING]
    return (key, np.array([*ignored, *(number in blocked for number in ENDING)], np.uint8))


def test_a_signal_to_all_processes_reaches_neither_workers_nor_their_server():
    """The training needs both until its checkpoint is written. Workers have their server's mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    ((_, flags),) = Workers(shielded, 1)([0])
    assert flags.tolist() == [1] * 2 * len(ENDING)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")  # there is no GPU
@pytest.mark.parametrize("gpu", [None, torch.device("cuda:1")])
def test_the_thread_that_pins_begins_on_the_gpu_of_the_batches(gpu, monkeypatch):
    current, begun = ["cuda:0"], []
    begin = DataLoader.__iter__

    @contextlib.contextmanager
    def on(device):
        current.append(str(device))
        yield
        current.pop()

    def noted(loader):
        begun.append((current[-1], loader.pin_memory))
        return begin(loader)

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(DataLoader, "__iter__", noted)
    for _ in Workers(square, 0, gpu)([1, 2]):
        assert current == ["cuda:0"]
    assert begun == [("cuda:1", True) if gpu else ("cuda:0", False)]


def test_workers_that_are_kept_are_the_same_again():
    calls = Workers(square, 1, keep=True)
    pids = {pid for _ in range(2) for _, _, pid in calls([1, 2])}
    assert len(pids) == 1


def test_workers_that_are_kept_forget_what_was_not_asked_for():
    calls = Workers(square, 2, keep=True)
    for key, _, _ in calls(range(8)):
        if key == 1:
            break
    assert values(calls([5, 6])) == [(5, 25), (6, 36)]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("key", "error"), [("refuse", InputError), ("full", OSError)])
def test_an_error_in_a_worker_keeps_its_message(workers, key, error):
    with pytest.raises(error) as caught:
        list(Workers(square, workers)([1, key, 2]))
    assert str(caught.value) in ("no such key", "[Errno 24] Too many open files")


def test_a_worker_that_dies_is_an_error_and_no_hang():
    begin = time.monotonic()
    with pytest.raises(ChildProcessError, match=r"give fewer of them by (--data\.)?workers"):
        list(Workers(square, 2)([1, "die", 2, 3]))
    assert time.monotonic() - begin < 30


@pytest.mark.long
def test_batches_are_the_same_with_workers(split):
    """Of two epochs, the second from its middle; and of an evaluation."""
    augmentation = CropAugmentation(8, rand_augment=9)
    passes = []
    for workers in (0, 2):
        train = StreamedTrainBatches(split, 4, AS_IT_IS, augmentation, 2, 0, workers)
        first = list(train)
        train.start_at(1, 2)
        evaluated = list(StreamedEvalBatches(split, 4, AS_IT_IS, 8, workers))
        passes.append([*first, *train, *evaluated])
    assert same(*passes)
    assert len(passes[0]) == 4 + 2 + 4


def open_files():
    return len(os.listdir("/proc/self/fd"))


def shared_memory():
    """What this process has mapped of /dev/shm, whatever other processes do there."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted(line.partition("/dev/shm/")[2] for line in lines if "/dev/shm/" in line)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list them")
def test_results_take_neither_open_files_nor_shared_memory():
    calls = Workers(square, 1, keep=True)
    next(iter(calls([1, 2])))
    files, shared = open_files(), shared_memory()
    kept = list(calls([k % 16 for k in range(40)]))
    assert open_files() <= files + 2
    assert shared_memory() == shared
    assert len(kept) == 40


SCRIPT = """
import os, time
from test_data_workers import square, slow
from codistill.data.batches.workers import Workers

if __name__ == "__main__":
    results = Workers(slow, 2)(range(1000))
    for _ in range(COUNT):
        print(next(results)[2], flush=True)
"""


def slow(key):
    time.sleep(0.05)
    return square(key % 16)


@pytest.mark.parametrize(
    "sent",
    [*(pytest.param(x, marks=pytest.mark.long) for x in (signal.SIGKILL, signal.SIGINT)), None],
)
def test_workers_end_with_the_process_that_they_work_for(tmp_path, sent):
    """Also if it ends by itself and has not asked for all results."""
    (tmp_path / "script.py").write_text(SCRIPT.replace("COUNT", "1000" if sent else "8"))
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-W", "error", tmp_path / "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )
    assert process.stdout is not None
    pids = {int(process.stdout.readline()) for _ in range(8)}
    assert len(pids) == 2
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does: all of them get it
    elif sent:
        process.kill()
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Worker" not in errors  # no traceback of a worker
    assert errors.count("Traceback") <= (1 if sent == signal.SIGINT else 0)
    deadline = time.monotonic() + 20
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.05)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.long
@pytest.mark.parametrize("through", ["file", "stdin"])
def test_a_program_without_the_guard_is_told_of_it(tmp_path, through):
    plain(tmp_path / "photos", [1, 2, 3, 4])
    program = f"""
from codistill.data import EncodedSplit, Normalisation, StreamedTrainBatches, open_dataset
split = open_dataset("folder", {str(tmp_path / "photos")!r}).splits["all"]
list(StreamedTrainBatches(split, 2, Normalisation((0, 0, 0), (1, 1, 1)), workers=1))
"""
    (tmp_path / "program.py").write_text(program)
    arguments = [str(tmp_path / "program.py")] if through == "file" else ["-"]
    done = subprocess.run(
        [sys.executable, *arguments], input=program, capture_output=True, text=True, cwd=tmp_path
    )
    (*_, last) = done.stderr.strip().splitlines()
    assert "could not start, because each runs your program's file again: put what" in last
    assert 'under `if __name__ == "__main__":`, or leave out workers' in last
