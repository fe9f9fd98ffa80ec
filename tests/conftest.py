"""Tests run on one thread: tiny tensors are faster so, and sums have one order.

Two workers of pytest-xdist then fill two cores. Runs that several files of tests look at are
trained once, for all workers.
"""

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch
from commands_of import Copies
from filelock import FileLock

if TYPE_CHECKING:
    from ranks import Ranks

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector of garbage need not go through it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker for each core that this process may use; each takes up to 1 GB of memory.

    One more, for when a test waits, made it slower: 361 s in place of 321 on two cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, cores or 1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is cached of data sets lies in a folder of this worker, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk() -> Iterator[None]:
    """Files of tests need not outlast a loss of power: some runs would wait for 30 of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What this test caches of data sets lies in a folder of its own."""
    monkeypatch.setenv("CODISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The library `datasets`: offline, quiet, and with its own cache away from the user's."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield datasets
    gc.collect()  # it leaves files open


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder once for all workers: one of them calls `make(folder)`, the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def digits_runs(once: Once) -> list[Path]:
    """Two seeds of FFL, and one network alone, each for two epochs."""
    from runs_of import train

    def train_all(folder: Path) -> None:
        alone = {"method": {"name": "independent"}, "peers": 1, "shared": 0}
        for name, seed, changes in (("ffl0", 0, {}), ("ffl1", 1, {}), ("independent0", 0, alone)):
            train(folder / name, seed=seed, batch_size=64, lr=0.05, **changes)

    folder = once("digits_runs", train_all)
    return [folder / name for name in ("ffl0", "ffl1", "independent0")]


@pytest.fixture(scope="session")
def digits_report(digits_runs: list[Path], once: Once) -> Path:
    """The report of these runs, with the images 3 and 17."""
    from codistill.command.main import main

    def write(folder: Path) -> None:
        runs = map(str, digits_runs)
        assert main(["report", *runs, "--out", str(folder), "--images", "3,17"]) == 0

    return once("digits_report", write)


@pytest.fixture(scope="session")
def copies() -> Iterator[Copies]:
    """Runs commands in processes that can be killed and start at once."""
    copies = Copies()
    yield copies
    copies.close()


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Ranks]":
    """Starts functions in several processes that train together."""
    from ranks import Ranks

    ranks = Ranks(tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()
