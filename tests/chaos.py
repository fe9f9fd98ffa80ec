"""Attacks runs, caches and files, and counts what is lost.

    python tests/chaos.py [--minutes 10] [--seed N] [ATTACK ...]

Every attack gets the same share of the minutes. A try is held if the command ends as if nothing had
happened, or says in one line what is wrong, and if the run in the end has the same bits. A loss is
printed with its seed, and `--seed N --tries 1 ATTACK` repeats it. Exit status 1 after a loss.

Commands run in forks of this process, which start in no time and can be killed like any other.
"""

import argparse
import contextlib
import errno
import hashlib
import itertools
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import sklearn.datasets  # noqa: F401  so that forks need not import it
import torch
import torch._dynamo
import yaml
from data_fakes import make_fake, write_class_folders, write_extracted, write_parquet
from safetensors.torch import load_file

import codistill.clock
import codistill.methods
import codistill.reporting.tables
import codistill.runs.run
import codistill.runs.student
from codistill.command.main import main as command
from codistill.tensor_files import write_weights

METHODS = ("dml", "ffl", "afd", "pcl", "okddip")
SECONDS_AFTER = 60.0
"""How long a command may take to end when it should; a worker whose parent was killed, too."""
CACHED = ("cifar10", "parquet", "webdataset")
"""Forms of data of which codistill keeps something in its cache."""
_TINY = "--data digits --network resnet8 --peers 3 --epochs 2 --batch_size 256 --threads 1"
_ENOUGH = 5  # losses of one attack
TINY = [*_TINY.split(), "--loggers", "none", "--checkpoint_seconds", "0"]


class Lost(Exception):
    """An attack succeeded: what was lost, or accepted although it is wrong."""


class Skipped(Exception):
    """An attack cannot be tried here: why."""


@dataclass
class Ended:
    """A command that has ended: its exit status, negative for a signal, and what it printed."""

    status: int
    text: str

    def went_well(self) -> "Ended":
        if self.status:
            raise Lost(f"exit status {self.status}: {self.text.strip()[-300:]}")
        return self.said_it()

    def but_notes(self) -> str:
        """What it printed, without the lines in which codistill says what it did."""
        return "".join(x for x in self.text.splitlines(True) if not x.startswith("codistill: "))

    def numbers(self) -> list[str]:
        """The numbers with a point that it printed, which no name of a folder has."""
        return re.findall(r"\d+\.\d+", self.but_notes())

    def said_it(self) -> "Ended":
        """No traceback, and one line where the command did not do what was asked."""
        if "Traceback" in self.text:
            raise Lost(f"a traceback: {self.text.strip().splitlines()[-1][:300]}")
        if self.status == 2 and self.text.count("codistill: error: ") != 1:
            raise Lost(f"exit status 2 without one line of error: {self.text[-300:]}")
        return self


@dataclass
class Forked:
    """A command in a fork of this process, with a process group of its own."""

    pid: int
    log: Path
    begun: float = field(default_factory=time.monotonic)

    def ended(self, within: float = SECONDS_AFTER) -> Ended:
        """Waits for its end."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                text = self.log.read_text(errors="replace")
                return Ended(os.waitstatus_to_exitcode(status), text)
            time.sleep(0.005)
        self.kill()
        os.waitpid(self.pid, 0)
        raise Lost(f"it did not end within {within:.0f} s: {self.log.read_text()[-300:]}")

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def start(*arguments: object, log: Path, before: Callable[[], object] = lambda: None) -> Forked:
    """Starts a command in a fork, in which `before` is called first."""
    sys.stdout.flush()
    if pid := os.fork():
        return Forked(pid, log)
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1), os.dup2(file, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # it may be another kind
        before()
        status = command([str(a) for a in arguments])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # it must not go on as this process
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        status = 1
    os._exit(status)


def run(*arguments: object, log: Path, before: Callable[[], object] = lambda: None) -> Ended:
    return start(*arguments, log=log, before=before).ended()


class AtOperation:
    """Does something at the n-th operation that changes files of a folder, and at all after it.

    Args:
        folder: the folder.
        n: number of the operation, from 1.
        act: called with the name of the file. What it raises is what the operation raises.
    """

    def __init__(self, folder: Path, n: int, act: Callable[[str], None]):
        self.folder, self.n, self.act, self.seen = str(folder), n, act, 0

    def __call__(self) -> None:
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[object, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"):
            return
        flags = args[2] if event == "open" else os.O_WRONLY
        if isinstance(flags, int) and not flags & (os.O_WRONLY | os.O_RDWR):
            return  # it is only read
        if str(args[0]).startswith(self.folder):
            self.seen += 1
            if self.seen >= self.n:
                self.act(str(args[0]))


def kill_at(folder: Path, n: int) -> AtOperation:
    """Kills this process at the n-th operation that changes files of a folder."""
    return AtOperation(folder, n, lambda _: os.kill(os.getpid(), signal.SIGKILL))


def fail_at(folder: Path, n: int, number: int) -> AtOperation:
    """Lets the n-th operation and all after it fail, as a disk does.

    Args:
        folder: the folder.
        n: number of the operation.
        number: number of the error, such as errno.EIO.
    """

    def fail(file: str) -> None:
        raise OSError(number, os.strerror(number), file)

    return AtOperation(folder, n, fail)


def contents(path: Path) -> str:
    """What a run ends with, as a hash: weights, students, and the history but for its times."""
    found = hashlib.sha256()
    for name in ("weights.safetensors", "student.safetensors"):
        for key, x in sorted(load_file(path / name).items()):
            found.update(key.encode() + x.contiguous().numpy().tobytes())
    for line in (path / "history.jsonl").read_text().splitlines():
        record = {k: v for k, v in json.loads(line).items() if k not in _TIMES}
        found.update(json.dumps(record, sort_keys=True).encode())
    return found.hexdigest()


_TIMES = ("seconds", "images_per_second")


@dataclass
class Reference:
    """A run that nothing happened to."""

    path: Path
    contents: str
    seconds: float


class Attacks:
    """One method per attack, which makes one try with the random numbers that it is given.

    Args:
        folder: an empty folder for everything.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.references: dict[str, Reference] = {}
        self.memory: dict[str, object] = {}
        os.environ["CODISTILL_CACHE"] = str(folder / "cache")

    # What attacks need

    def place(self) -> Path:
        """An empty folder for one try."""
        path = self.folder / "try"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def log(self) -> Path:
        return self.folder / "log"

    def reference(self, method: str) -> Reference:
        if method not in self.references:
            path = self.folder / f"reference_{method}"
            begin = time.monotonic()
            run("train", *TINY, "--method", method, "--out", path, log=self.log()).went_well()
            self.references[method] = Reference(path, contents(path), time.monotonic() - begin)
        return self.references[method]

    def goes_on(self, method: str, path: Path) -> None:
        """Trains a run to its end, begun or not, and compares it with the reference."""
        if (path / "config.yaml").exists():
            ended = run("train", "--resume", path, log=self.log())
            if ended.status == 2 and not (path / "checkpoints").exists():
                ended.said_it()  # killed while it was made: nothing was trained yet
                shutil.rmtree(path)
        if not (path / "config.yaml").exists():
            shutil.rmtree(path, ignore_errors=True)
            ended = run("train", *TINY, "--method", method, "--out", path, log=self.log())
        ended.went_well()
        if contents(path) != self.reference(method).contents:
            raise Lost("the run ended with other weights or another history")
        if left := [p.name for p in path.rglob("*.tmp")]:
            raise Lost(f"left behind: {left}")

    def interrupted(self, method: str, path: Path, rng: random.Random) -> None:
        """A run that was killed after its first checkpoint."""
        while True:
            shutil.rmtree(path, ignore_errors=True)
            forked = start("train", *TINY, "--method", method, "--out", path, log=self.log())
            while (
                len(list(path.glob("checkpoints/*"))) < 2 and time.monotonic() < forked.begun + 60
            ):
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.3))
            forked.kill()
            if forked.ended().status == -signal.SIGKILL:
                return

    @contextlib.contextmanager
    def disk(self, size: int) -> Iterator[Path]:
        """A file system of its own, of so many bytes; skipped where this user may not make one."""
        path = self.folder / "disk"
        path.mkdir(exist_ok=True)
        mount("-t", "tmpfs", "-o", f"size={size}", "none", path)
        try:
            yield path
        finally:
            subprocess.run(["umount", "-l", path], check=True)

    def start_cached(
        self,
        kind: str,
        out: Path,
        cache: Path,
        before: Callable[[], object] = lambda: None,
        log: Path | None = None,
    ) -> Forked:
        """Starts a short training on data of which codistill keeps something in a cache.

        Args:
            kind: one of CACHED.
            out: the folder of the run.
            cache: the folder of the cache.
            before: called in the process first.
            log: file of its output.
        """
        root = self.folder / kind
        if not root.exists():
            _write_data(kind, root)
        options = "--network resnet8 --peers 2 --method dml --epochs 1 --batch_size 8 --threads 1"
        options += f" --loggers none --data {kind} --data.root {root}"
        options += "" if kind == "cifar10" else " --data.image_size 16 --data.workers 0"

        def prepare() -> None:
            os.environ["CODISTILL_CACHE"] = str(cache)
            before()

        arguments = "train", *options.split(), "--out", out
        return start(*arguments, log=log or self.log(), before=prepare)

    def train_cached(
        self, kind: str, out: Path, cache: Path, before: Callable[[], object] = lambda: None
    ) -> Ended:
        return self.start_cached(kind, out, cache, before).ended()

    def cached_reference(self, kind: str) -> None:
        """Trains once with a cache of its own, which is kept, and remembers the result."""
        if kind not in self.memory:
            out, cache = self.folder / f"run_{kind}", self.folder / f"cache_{kind}"
            self.train_cached(kind, out, cache).went_well()
            assert list(cache.iterdir()), f"{kind} keeps nothing in the cache"
            self.memory[kind] = contents(out)

    def goes_on_cached(self, kind: str, out: Path, cache: Path) -> None:
        """Trains with this cache, whatever is in it, which has to give the same result."""
        shutil.rmtree(out, ignore_errors=True)
        self.train_cached(kind, out, cache).went_well()
        if contents(out) != self.memory[kind]:
            raise Lost(f"{kind}: other images were trained on")

    # Kills

    def kill_at_a_file_operation(self, rng: random.Random) -> str:
        """Kills a training at an operation on its files, up to three times; then it goes on."""
        method, path = rng.choice(METHODS), self.place() / "run"
        self.reference(method)
        numbers = []
        for _ in range(rng.randint(1, 3)):
            numbers.append(rng.randint(1, 40))
            begun = (path / "config.yaml").exists()
            again = ["--resume", path] if begun else [*TINY, "--method", method, "--out", path]
            if not begun:
                shutil.rmtree(path, ignore_errors=True)
            ended = run("train", *again, log=self.log(), before=kill_at(path, numbers[-1]))
            if ended.status not in (0, -signal.SIGKILL):
                ended.said_it()
        self.goes_on(method, path)
        return f"{method}, operations {numbers}"

    def kill_at_a_random_time(self, rng: random.Random) -> str:
        """Kills a training at any moment; then it goes on."""
        method, path = rng.choice(METHODS), self.place() / "run"
        after = rng.uniform(0, self.reference(method).seconds)
        forked = start("train", *TINY, "--method", method, "--out", path, log=self.log())
        time.sleep(after)
        forked.kill()
        forked.ended()
        self.goes_on(method, path)
        return f"{method}, after {after:.2f} s"

    def signals(self, rng: random.Random) -> str:
        """A signal to a training: a checkpoint of the moment, its exit status; then it goes on."""
        method, path = rng.choice(METHODS), self.place() / "run"
        number, status = rng.choice(
            [
                (signal.SIGTERM, 143),
                (signal.SIGUSR1, 138),
                (signal.SIGINT, 130),
                (signal.SIGHUP, 129),
            ]
        )
        options = [*TINY, "--checkpoint_seconds", "300", "--epochs", "2", "--method", method]
        reference = self.reference(method)
        forked = start("train", *options, "--out", path, log=self.log())
        while not (path / "history.jsonl").exists() and time.monotonic() < forked.begun + 60:
            if os.waitid(os.P_PID, forked.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.002)
            if (path / "checkpoints").exists() and rng.random() < 0.01:
                break
        time.sleep(rng.uniform(0, reference.seconds / 2))
        forked.kill(number)
        ended = forked.ended().said_it()
        if ended.status not in (0, status):
            raise Lost(f"{number.name} ended it with {ended.status}, not {status}")
        if ended.status and "--resume" not in ended.text:
            raise Lost(f"{number.name}: nothing says how to go on: {ended.text[-300:]}")
        if ended.status and not list(path.glob("checkpoints/*")):
            raise Lost(f"{number.name} left no checkpoint")
        self.goes_on(method, path)
        return f"{method}, {number.name}"

    def kill_a_comparison(self, rng: random.Random) -> str:
        """Kills `codistill compare`: its workers end, and the next call finishes it."""
        tree = {
            "settings": {"data": "digits", "peers": 2, "epochs": 2, "batch_size": 256, "threads": 1}
            | {"checkpoint_seconds": 0, "loggers": "none"},
            "networks": ["resnet8"],
            "seeds": [0],
            "methods": {"dml": {}},
        }
        place = self.place()
        file = place / "c.yaml"
        file.write_text(yaml.safe_dump(tree))
        options = ["--parallel", "2", "--no-analysis"]
        if "comparison" not in self.memory:
            out = self.folder / "comparison"
            begin = time.monotonic()
            start("compare", file, *options, "--out", out, log=self.log()).ended(300).went_well()
            self.memory["comparison"] = {p.name: contents(p) for p in (out / "runs").iterdir()}
            self.memory["seconds"] = time.monotonic() - begin
        after = rng.uniform(0, float(str(self.memory["seconds"])))
        out = place / "out"
        forked = start("compare", file, *options, "--out", out, log=self.log())
        time.sleep(after)
        forked.kill()
        forked.ended()
        end = time.monotonic() + SECONDS_AFTER
        while workers := _processes_about(str(out)):
            if time.monotonic() > end:
                for pid in workers:
                    os.kill(pid, signal.SIGKILL)
                raise Lost(
                    f"{len(workers)} workers outlived their parent, killed after {after:.1f} s"
                )
            time.sleep(0.1)
        start("compare", file, *options, "--out", out, log=self.log()).ended(300).went_well()
        if {p.name: contents(p) for p in (out / "runs").iterdir()} != self.memory["comparison"]:
            raise Lost("the comparison's runs ended otherwise")
        return f"after {after:.1f} s"

    def kill_a_report(self, rng: random.Random) -> str:
        """Kills `codistill report --out` at an operation on its files; then once more."""
        source, out = self.reference("dml").path, self.place() / "page"
        arguments = ["report", source, "--no-analysis", "--out", out]
        if "report" not in self.memory:
            run(*arguments, log=self.log()).went_well()
            self.memory["report"] = _bytes_of(out)
            shutil.rmtree(out)
        number = rng.randint(1, 12)
        run(*arguments, log=self.log(), before=kill_at(out, number))
        run(*arguments, log=self.log()).went_well()
        if _bytes_of(out) != self.memory["report"]:
            raise Lost(f"killed at operation {number}: the report has other files or content")
        return f"operation {number}"

    # Disks, clocks, two at once

    def full_disk(self, rng: random.Random) -> str:
        """Files may not grow beyond a limit: one line says so, and with room the run goes on."""
        method, path = rng.choice(METHODS), self.place() / "run"
        limit = int(10 ** rng.uniform(0, 6.5))

        def limited() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        self.reference(method)
        log = self.folder / "log_of_a_full_disk"
        log.unlink(missing_ok=True)
        os.mkfifo(log)
        reader = subprocess.Popen(
            ["cat", str(log)], stdout=subprocess.PIPE, text=True
        )  # a pipe has no size
        forked = start("train", *TINY, "--method", method, "--out", path, log=log, before=limited)
        text, _ = reader.communicate(timeout=SECONDS_AFTER)
        log.unlink()
        log.write_text(text)
        ended = forked.ended().said_it()
        log.unlink()
        if ended.status not in (0, 2):
            raise Lost(f"exit status {ended.status}: {ended.text[-300:]}")
        self.goes_on(method, path)
        return f"{method}, {limit} bytes a file"

    def really_full_disk(self, rng: random.Random) -> str:
        """A small file system, for a run or for the cache: the same, and with room it goes on."""
        size, cache = int(10 ** rng.uniform(4, 6.8)), rng.random() < 0.5
        method, kind = rng.choice(METHODS), rng.choice(CACHED)
        self.reference(method)
        self.cached_reference(kind)
        with self.disk(size) as disk:
            out = self.place() / "run" if cache else disk / "run"
            if cache:
                ended = self.train_cached(kind, out, disk)
            else:
                ended = run("train", *TINY, "--method", method, "--out", out, log=self.log())
            ended.said_it()
            if ended.status not in (0, 2):
                raise Lost(f"exit status {ended.status}: {ended.text[-300:]}")
            if ended.status and os.strerror(errno.ENOSPC) not in ended.text:
                raise Lost(f"it does not say that the disk is full: {ended.text[-300:]}")
            mount("-o", "remount,size=64m", disk)
            if not cache:
                self.goes_on(method, out)
            else:
                if ended.status == 0:
                    shutil.rmtree(out)
                self.goes_on_cached(kind, out, disk)
        return f"{kind}'s cache, {size} bytes" if cache else f"{method}, {size} bytes"

    def read_only_disk(self, rng: random.Random) -> str:
        """A run, or the cache, on a disk that only reads: one line, or the same result."""
        method, kind = rng.choice(METHODS), rng.choice(CACHED)
        what = rng.choice(["no run", "unfinished run", "finished run", "cache"])
        reference = self.reference(method)
        self.cached_reference(kind)
        with self.disk(64 << 20) as disk:
            path = disk / "run"
            if what == "unfinished run":
                self.interrupted(method, path, rng)
            elif what == "finished run":
                shutil.copytree(reference.path, path)
            before = _bytes_of(disk)
            mount("-o", "remount,ro", disk)
            if what == "finished run":
                for arguments in (["evaluate", path], ["report", path]):
                    shown, wanted = (
                        run(*[x if x != path else at for x in arguments], log=self.log())
                        .went_well()
                        .numbers()
                        for at in (path, reference.path)
                    )
                    if shown != wanted:
                        raise Lost(f"{arguments[0]} showed something else")
            elif what == "cache":
                ended = self.train_cached(kind, self.place() / "run", disk).said_it()
                if ended.status == 0 and contents(self.folder / "try" / "run") != self.memory[kind]:
                    raise Lost(f"{kind}: other images were trained on")
            else:
                new = [*TINY, "--method", method, "--out", path]
                begun = (path / "config.yaml").exists()
                ended = run("train", *(["--resume", path] if begun else new), log=self.log())
                if ended.said_it().status != 2 or os.strerror(errno.EROFS) not in ended.text:
                    raise Lost(f"it does not say that the disk is read-only: {ended.text[-300:]}")
            if _bytes_of(disk) != before:
                raise Lost("files have changed")
            mount("-o", "remount,rw", disk)
            if what != "cache":
                self.goes_on(method, path)
        return f"{what}, {kind if what == 'cache' else method}"

    def failing_disk(self, rng: random.Random) -> str:
        """From some operation on every change of a file fails: one line, and later it goes on."""
        method, path = rng.choice(METHODS), self.place() / "run"
        self.reference(method)
        number = rng.choice([errno.EIO, errno.EROFS, errno.ENOSPC, errno.EACCES, errno.ESTALE])
        n = rng.randint(1, 60)
        ended = run(
            *("train", *TINY, "--method", method, "--out", path),
            log=self.log(),
            before=fail_at(path, n, number),
        ).said_it()
        if ended.status not in (0, 2):
            raise Lost(f"exit status {ended.status}: {ended.text[-300:]}")
        if ended.status and os.strerror(number) not in ended.text:
            raise Lost(f"it does not say {os.strerror(number)!r}: {ended.text[-300:]}")
        self.goes_on(method, path)
        return f"{method}, {errno.errorcode[number]} from operation {n} on"

    def removed_folder(self, rng: random.Random) -> str:
        """The folder of a run in training is removed or moved, or its checkpoints are."""
        method, path = rng.choice(METHODS), self.place() / "run"
        what = rng.choice(["removed", "moved", "checkpoints removed", "checkpoints moved"])
        folder = path / "checkpoints" if "checkpoints" in what else path
        reference, away = self.reference(method), path.parent / "away"
        forked = start("train", *TINY, "--method", method, "--out", path, log=self.log())
        while not folder.exists() and time.monotonic() < forked.begun + 60:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, reference.seconds))
        if "removed" in what:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            folder.rename(away)
        ended = forked.ended().said_it()
        if ended.status not in (0, 2):
            raise Lost(f"{what}: exit status {ended.status}: {ended.text[-300:]}")
        if not path.exists() and f"--resume {path}" in ended.text:
            raise Lost(f"{what}: it advises to continue what is gone: {ended.text[-300:]}")
        if what == "checkpoints moved" and not (path / "checkpoints").exists():
            away.rename(path / "checkpoints")
        if what == "moved" and list(away.glob("checkpoints/epoch*.pt")):
            self.goes_on(method, away)
        else:
            self.goes_on(method, path)
        return f"{method}, {what}"

    def two_at_once(self, rng: random.Random) -> str:
        """Two trainings into one folder: one trains, and config.yaml is its own; one is refused."""
        path = self.place() / "run"
        reference = self.reference("dml")
        arguments = ["train", *TINY, "--method", "dml", "--out", path]
        other = self.folder / "log2"
        first = start(*arguments, log=self.log())
        time.sleep(rng.choice([0.0, rng.uniform(0, 0.1), rng.uniform(0, reference.seconds)]))
        second = start(*arguments, "--seed", "1", log=other)
        ends = [first.ended().said_it(), second.ended().said_it()]
        if sorted(e.status for e in ends) != [0, 2]:
            raise Lost(f"they ended with {[e.status for e in ends]}")
        config = yaml.safe_load((path / "config.yaml").read_text())
        if ends[config["seed"]].status != 0:
            raise Lost("config.yaml is of the one that was refused")
        if config["seed"] == 0 and contents(path) != reference.contents:
            raise Lost("the run has other weights")
        return f"{[e.status for e in ends]}"

    def jumping_clock(self, rng: random.Random) -> str:
        """The clock of the wall jumps by up to a year at every look: nothing depends on it."""
        method, path = rng.choice(METHODS), self.place() / "run"
        seed = rng.random()

        def jumping() -> None:
            real, jumps = codistill.clock.now, random.Random(seed)
            codistill.clock.now = lambda: real() + timedelta(days=jumps.uniform(-365, 365))

        self.reference(method)
        ended = run(
            "train", *TINY, "--method", method, "--out", path, log=self.log(), before=jumping
        )
        ended.went_well()
        if contents(path) != self.reference(method).contents:
            raise Lost("the run has other weights or another history")
        return method

    # Damage

    def damaged_unfinished_run(self, rng: random.Random) -> str:
        """One file of a run that was killed is damaged: it goes on to the same bits, or says why.

        Where an earlier checkpoint is whole, it goes on.
        """
        method, path = rng.choice(METHODS), self.place() / "run"
        self.reference(method)
        self.interrupted(method, path, rng)
        checkpoints = sorted(path.glob("checkpoints/*"))
        files = [p for p in path.rglob("*") if p.is_file() and p.suffix != ".lock"]
        file = rng.choice([*files, *checkpoints[-1:] * 3])
        what = f"{method}, {file.relative_to(path)}: {damage(file, rng)}"
        ended = run("train", "--resume", path, log=self.log()).said_it()
        if ended.status:
            if file in checkpoints and len(checkpoints) > 1:
                raise Lost(f"{what}: another checkpoint is whole, but: {ended.text[-300:]}")
            if path.name not in ended.text:
                raise Lost(f"{what}: the error names no file of the run: {ended.text[-300:]}")
        elif contents(path) != self.reference(method).contents:
            raise Lost(f"{what}: it went on to other weights or another history")
        return what

    def damaged_finished_run(self, rng: random.Random) -> str:
        """One file of a finished run is damaged: what is read of it is the same, or says why."""
        source, path = self.reference("ffl").path, self.place() / "run"
        commands = {
            "evaluate": ["evaluate", path],
            "report": ["report", path],
        }
        if "shown" not in self.memory:
            shutil.copytree(source, path)
            self.memory["shown"] = {
                name: run(*arguments, log=self.log()).went_well().but_notes()
                for name, arguments in commands.items()
            }
            self.memory["student"] = _student_says(path, self.log())
            shutil.rmtree(path)
        shutil.copytree(source, path)
        files = [p for p in path.rglob("*") if p.is_file() and p.parent == path]
        file = rng.choice(files)
        what = f"{file.relative_to(path)}: {damage(file, rng)}"
        shown = dict(self.memory["shown"])  # type: ignore[call-overload]
        for name, arguments in commands.items():
            ended = run(*arguments, log=self.log()).said_it()
            if not ended.status and ended.but_notes() != shown[name]:
                raise Lost(f"{what}: {name} showed something else")
        if file.name.startswith("student."):
            said = _student_says(path, self.log())
            if said and said != self.memory["student"]:
                raise Lost(f"{what}: the student says something else")
        return what

    def damaged_cache(self, rng: random.Random) -> str:
        """A file of the cache is damaged: it is made anew, and nothing else changes."""
        kind = rng.choice(CACHED)
        self.cached_reference(kind)
        cache = self.place() / "cache"
        shutil.copytree(self.folder / f"cache_{kind}", cache)
        file = rng.choice([p for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"])
        what = f"{file.name}: {damage(file, rng)}"
        ended = self.train_cached(kind, cache.parent / "run", cache).said_it()
        if ended.status == 0 and contents(cache.parent / "run") != self.memory[kind]:
            raise Lost(f"{what}: other images were trained on")
        self.goes_on_cached(kind, cache.parent / "again", cache)
        return what

    def kill_while_a_cache_is_built(self, rng: random.Random) -> str:
        """Kills a training at an operation on the cache; the next one makes the cache."""
        kind, cache = rng.choice(CACHED), self.place() / "cache"
        self.cached_reference(kind)
        n = rng.randint(1, 9)
        self.train_cached(kind, cache.parent / "killed", cache, kill_at(cache, n))
        self.goes_on_cached(kind, cache.parent / "run", cache)
        if left := [p.name for p in cache.rglob("*.tmp*")]:
            raise Lost(f"{kind}, operation {n}: what the killed one wrote stays: {left}")
        return f"{kind}, operation {n}"

    def two_build_a_cache(self, rng: random.Random) -> str:
        """Two trainings make the same cache at once, and one may be killed: all have the images."""
        kind, place = rng.choice(CACHED), self.place()
        cache, killed = place / "cache", rng.random() < 0.5
        self.cached_reference(kind)
        other = self.folder / "log2"
        first = self.start_cached(kind, place / "first", cache)
        time.sleep(rng.choice([0.0, rng.uniform(0, 0.1), rng.uniform(0, 1)]))
        second = self.start_cached(kind, place / "second", cache, log=other)
        if killed:
            time.sleep(rng.uniform(0, 0.5))
            first.kill()
        ends = {"first": first.ended(), "second": second.ended()}
        for name, ended in ends.items():
            if name == "first" and killed and ended.status:
                continue
            ended.went_well()
            if contents(place / name) != self.memory[kind]:
                raise Lost(f"{kind}: the {name} trained on other images")
        self.goes_on_cached(kind, place / "third", cache)
        return f"{kind}{', one killed' if killed else ''}"

    # What others put there

    def hostile_files(self, rng: random.Random) -> str:
        """Pickles, YAML and headers that would do something: a line of error, nothing executed."""
        path, mark = self.place() / "run", self.folder / "executed"
        mark.unlink(missing_ok=True)
        shutil.copytree(self.reference("dml").path, path)
        (path / "result.json").unlink()
        attack = rng.choice(["checkpoint", "config tag", "config code", "student header", "bomb"])
        arguments: list[object] = ["train", "--resume", path]
        if attack == "checkpoint":
            for file in path.glob("checkpoints/*"):
                file.write_bytes(pickle.dumps(_Executes(mark)))
        elif attack == "config tag":
            tag = f"!!python/object/apply:os.system ['touch {mark}']"
            (path / "config.yaml").write_text(f"seed: {tag}\n")
        elif attack == "config code":
            module = path.parent / "evil.py"
            module.write_text(f"open({str(mark)!r}, 'w')\n")
            text = (path / "config.yaml").read_text()
            (path / "config.yaml").write_text(text.replace("name: dml", "name: evil:Evil"))
        elif attack == "bomb":
            lines = ["a: &a [x, x, x, x, x, x, x, x]"]
            lines += [
                f"{b}: &{b} [{', '.join(['*' + a] * 8)}]"
                for a, b in itertools.pairwise("abcdefghi")
            ]
            (path / "config.yaml").write_text("\n".join(lines))
        else:
            about = {"network": "os:system", "classes": ["a"], "image_size": [8, 8]}
            write_weights(path / "student.safetensors", {"w": torch.zeros(1)}, about)
            if _student_says(path, self.log()):
                raise Lost("a student whose network is os:system was opened")
        here = os.getcwd()
        ended = run(
            *arguments,
            log=self.log(),
            before=lambda: (os.chdir(path.parent), sys.path.insert(0, "")),
        )
        assert os.getcwd() == here
        ended.said_it()
        if mark.exists():
            raise Lost(f"{attack}: it was executed")
        if attack not in ("student header", "checkpoint") and ended.status == 0:
            raise Lost(f"{attack}: it was accepted")
        return attack


class _Executes:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


def damage(file: Path, rng: random.Random) -> str:
    """Damages a file at a random place and says how."""
    content = bytearray(file.read_bytes())
    how = rng.choice(["one bit", "one bit", "zeros", "shorter", "empty", "gone", "longer"])
    at = rng.randrange(max(1, len(content)))
    if how == "gone":
        file.unlink()
        return how
    if how == "one bit" and content:
        content[at] ^= 1 << rng.randrange(8)
    elif how == "zeros":
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    elif how == "shorter":
        del content[at:]
    elif how == "empty":
        content.clear()
    elif how == "longer":
        content += rng.randbytes(rng.randint(1, 100))
    file.write_bytes(content)
    return f"{how} at {at} of {len(content)}"


def mount(*arguments: object) -> None:
    """Calls `mount`; skips what needs it where it may not be called."""
    try:
        subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or error
        raise Skipped(f"file systems cannot be mounted: {str(why).strip()}") from error


def _write_data(kind: str, root: Path) -> None:
    """Writes 30 images of ten classes in a form of CACHED."""
    fake = make_fake("cifar10")
    root.mkdir()
    if kind == "cifar10":
        write_extracted(root, fake)
    elif kind == "parquet":
        write_parquet(root, fake)
    else:
        folders = write_class_folders(root.parent / "as_folders", fake)
        for split in ("train", "test"):
            with tarfile.open(root / f"{split}.tar", "w") as tar:
                for i, image in enumerate(sorted((folders / split).glob("*/*.png"))):
                    label = root.parent / "label"
                    label.write_text(str(fake.classes.index(image.parent.name)))
                    tar.add(image, f"{i:05d}.png")
                    tar.add(label, f"{i:05d}.cls")


def _bytes_of(folder: Path) -> dict[str, str]:
    """The files of a folder but for hidden ones, which are what a kill may leave."""
    files = (p for p in sorted(folder.rglob("[!.]*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _student_says(path: Path, log: Path) -> str:
    """The logits of a student for one image, or nothing where it is refused in one line."""

    def says() -> None:
        from codistill import InputError, load_student

        try:
            student = load_student(path / "student.safetensors")
            with torch.no_grad():
                print(student(torch.linspace(-1, 1, 192).view(1, 3, 8, 8)).tolist())
        except InputError:
            pass
        sys.stdout.flush()
        os._exit(0)

    return run("--version", log=log, before=says).went_well().text


def _processes_about(text: str) -> list[int]:
    """Processes, this one and its forks aside, in whose command line a text stands."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text in (folder / "cmdline").read_text(errors="replace"):
                found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


_NO_ATTACKS = ("place", "log", "reference", "goes_on", "interrupted", "disk", "start_cached")
_NO_ATTACKS += ("train_cached", "cached_reference", "goes_on_cached")
ATTACKS = [
    name
    for name, f in vars(Attacks).items()
    if not name.startswith("_") and callable(f) and name not in _NO_ATTACKS
]


def attack(names: list[str], minutes: float, seed: int, tries: int | None) -> int:
    """Runs the attacks, prints a table, and returns the number of tries that were not held."""
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(1)
    lost: list[str] = []
    rows = []
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        attacks = Attacks(Path(folder))
        for name in names:
            count = held = 0
            end = time.monotonic() + 60 * minutes / len(names)
            while (count < tries) if tries else (time.monotonic() < end or not count):
                if count - held == _ENOUGH:
                    break
                number = seed + count
                count += 1
                try:
                    getattr(attacks, name)(random.Random(number))
                    held += 1
                except Skipped as why:
                    count -= 1
                    print(f"{name} is skipped: {why}", flush=True)
                    break
                except Lost as error:
                    lost.append(f"{name} --seed {number}: {error}")
                    print(f"LOST: {lost[-1]}", flush=True)
            rows.append((name, count, held))
            print(f"{name}: {held} of {count} held", flush=True)
    table = Table("attack", "tries", "held", "lost", title="chaos")
    for name, count, held in rows:
        table.add_row(name.replace("_", " "), str(count), str(held), str(count - held))
    Console().print(table)
    return len(lost)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=", ".join(ATTACKS))
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("CHAOS_MINUTES", 10)))
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--tries", type=int, help="of each attack, in place of --minutes")
    options = parser.parse_args(argv)
    if unknown := set(options.attacks) - set(ATTACKS):
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(ATTACKS)}")
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    return bool(attack(options.attacks or ATTACKS, options.minutes, seed, options.tries))


if __name__ == "__main__":
    sys.exit(main())
