"""A training in a folder, which has all that is needed to repeat, resume and use it.

    RUN/config.yaml            every setting, resolved
    RUN/manifest.json          versions, git, machine, data; one entry per process that trained
    RUN/history.jsonl, .csv    one record per epoch, as `fit` returns them
    RUN/start.safetensors      first weights of the method, if they were not drawn from the seed
    RUN/method_*.safetensors   networks that the method was given, such as KD's teacher
    RUN/checkpoints/*.pt       the last N, for --resume
    RUN/weights.safetensors    the method after the last epoch
    RUN/weights_best.safetensors   and after the epoch that the validation images chose
    RUN/student.safetensors    the network that ships: see `RunScores.kept`
    RUN/result.json            scores of every classifier
    RUN/broken_images.txt      images that cannot be read, and why, if there are any
    RUN/loggers.json           how far each logger has got

Of several processes that train it (`codistill.distributed`), the first one writes.

Every file is written atomically. The checkpoint holds the history, and the history files are
written from it: they have no gaps or duplicates, however often a run was killed.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from codistill import distributed, files
from codistill.data.batch import Batch
from codistill.errors import InputError
from codistill.importing import refuse_code
from codistill.methods.method import Method
from codistill.runs import checkpoints
from codistill.runs.folder import (
    CONFIG,
    START,
    copy_name,
    keep_lock,
    lock_folder,
    locked,
    read_config,
    refuse_occupied,
)
from codistill.runs.history import read_history, write_history
from codistill.runs.loggers import logging_to, require_loggers
from codistill.runs.manifest import MANIFEST, Manifest, Process
from codistill.runs.new_run import prepare
from codistill.runs.results import (
    RESULT,
    RunScores,
    best_epoch,
    out_of_patience,
    preferred,
)
from codistill.runs.student import write_student
from codistill.settings.build_data import Data, build_data, mix_labels
from codistill.settings.build_method import (
    build_method,
    make_optimizer,
    update_options,
)
from codistill.settings.config import Config
from codistill.settings.keeping import names_kept
from codistill.tensor_files import load_into, read_weights, write_weights
from codistill.training.device import deterministic, use_device
from codistill.training.fit import epochs
from codistill.training.placement import Where, require_division
from codistill.training.record import Record
from codistill.training.state import TrainingState
from codistill.training.stopping import Stop, never
from codistill.training.sync_bn import synchronise

STUDENT = "student.safetensors"
WEIGHTS = {"last": "weights.safetensors", "best": "weights_best.safetensors"}

Watch = Callable[[Iterable[Batch]], Iterable[Batch]]


def read_run(path: Path) -> tuple[Config, Manifest]:
    """The settings of a run as it was made, and its manifest.

    Raises:
        InputError: the folder holds no run, or a damaged one.
    """
    return read_config(path), Manifest.read(path)


class Run:
    """A training that lives in a folder.

    Args:
        path: folder of a run that `Run.create` made.
        device: device to use in place of the configured one.
        root: present place of the images, if they were moved.
        workers: number of processes that read images. It changes no result.
        loggers: loggers to use in place of the configured ones.
        trust_code: whether to import what the folder names as package.module:name.
        placement: what several processes divide; see `TrainingState`.

    Raises:
        InputError: the folder holds no run, or a damaged one, or names code that is not trusted.
    """

    def __init__(
        self,
        path: Path | str,
        device: str | None = None,
        root: str | None = None,
        workers: int | None = None,
        loggers: str | None = None,
        trust_code: bool = False,
        placement: Where = "data",
        _made: Method | None = None,  # the method, built by `create` already
    ):
        self.path, self.placement = Path(path), placement
        self._data: Data | None = None
        config, self.manifest = read_run(self.path)
        self.made_with = config
        if not trust_code:
            named = dataclasses.replace(config, loggers="none") if loggers else config
            refuse_code(named.names(), self.path)
        self._texts: dict[str, str] = {}  # of config.yaml and manifest.json, for checkpoints
        self._lock: FileLock | None = None  # of a run that is made and not trained yet
        own = {option: self.path / copy_name(option) for option in config.method}
        self.config = dataclasses.replace(
            config,
            device=device or config.device,
            loggers=loggers or config.loggers,
            method=config.method | {o: str(file) for o, file in own.items() if file.exists()},
            data=dataclasses.replace(
                config.data,
                root=root or config.data.root,
                workers=config.data.workers if workers is None else workers,
            ),
        )
        self.device = use_device(self.config.device, self.config.threads)
        self.method = (_made or self._build_method()).to(self.device)

    @classmethod
    def create(cls, config: Config, placement: Where = "data") -> "Run":
        """Makes a new run in the folder that the configuration names.

        The folder has to be new or empty, or to hold a run that has not saved anything yet.
        config.yaml is written last; with it the folder holds a run. The folder stays locked until
        the end of training, so no other process makes a run in it.

        Raises:
            InputError: the settings do not fit each other or the data, or the folder is taken.
                Nothing is then written.
        """
        path = config.run_folder()
        with distributed.first_alone():
            if distributed.rank():
                return cls(path, trust_code=True, placement=placement)
            return cls._create(path, config, placement)

    @classmethod
    def _create(cls, path: Path, config: Config, placement: Where) -> "Run":
        refuse_occupied(path)
        new = prepare(config)
        if placement == "peers":
            require_division(new.method)
        path.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(path)
        try:
            new.write(path)
            # The caller named the code.
            run = cls(path, trust_code=True, placement=placement, _made=new.method)
        except BaseException:
            lock.release()
            raise
        keep_lock(path, lock)
        run._lock, run._data = lock, new.data  # read once
        return run

    def train(self, watch: Watch = lambda batches: batches, stop: Stop = never) -> Iterator[Record]:
        """Trains from the last checkpoint to the end, and yields the record of each epoch.

        Args:
            watch: wraps the batches of every epoch, for a progress bar.
            stop: asked after each step, and before each batch of an evaluation. When it returns
                True, training ends there with a checkpoint, and the run is not `finished`.
        """
        config = self.config
        require_loggers(config)
        first = distributed.rank() == 0
        with locked(self.path) if first else contextlib.nullcontext(), deterministic(self.device):
            with distributed.first_alone():
                data = self._begin(first)
            torch.manual_seed(config.seed)  # for what a method draws while it trains
            if config.compile:
                self.method.peers.compile_stages()
            state = TrainingState(
                self.method,
                make_optimizer(config, self.method),
                update_options(config),
                self.placement,
            )
            if config.sync_bn:
                synchronise(self.method)
            checkpoints.restore(self.path, state, self.manifest.id)
            if first:
                self._note_process(state)
            train = mix_labels(config, data.train, len(data.classes))
            batches = _Watched(train, watch, self, state)
            by_step = config.schedule_unit == "step"
            unit = 1 / len(batches) if by_step else 1.0
            records = epochs(
                self.method,
                batches,
                data.evaluate_on,
                epochs=config.epochs,
                held_out=data.evaluate_on.get("val"),
                lr_at=functools.partial(config.lr_at, unit=unit),
                lr_every_step=by_step,
                precision=config.precision,
                eval_precision=config.eval_precision,
                evaluate_every=config.evaluate_every,
                cuda_graphs=config.cuda_graphs,
                state=state,
                stop=stop,
            )
            students = self.names_kept()
            with self._log(state) if first else contextlib.nullcontext() as log:
                while not (over := out_of_patience(state.history, students, config.patience)):
                    if (record := next(records, None)) is None:
                        break
                    for found in distributed.of_all(data.broken.found):
                        data.broken.add(found.items())
                    if best_epoch(state.history, students) == state.epoch:
                        with state.whole() as whole:
                            if first:
                                self._write_weights("best", whole, state.epoch)
                                self._write_student(whole, state.history[-1], data)
                    self._save(state)
                    if log:
                        log(record)
                    yield record
                stopped = state.epoch < config.epochs and not over
                if stopped and state.step:
                    self._save(state)
                if not stopped:
                    with state.whole() as whole:
                        if first:
                            self._end(whole, state.history, data, students)
                distributed.wait_for_all()

    def _begin(self, first: bool) -> Data:
        """The data of a run that nobody has changed since it was opened."""
        made, self.manifest = read_run(self.path)
        if made != self.made_with:
            raise InputError(f"{self.path} holds another run since this one was opened")
        data = self.data()
        if first:
            for leftover in list(self.path.rglob(".*.tmp")):  # of a process that was killed
                files.remove(leftover)
            data.broken.keep_in(self.path / "broken_images.txt")
        return data

    @contextlib.contextmanager
    def _log(self, state: TrainingState) -> Iterator[Callable[[Record], None]]:
        """Yields a function that writes the history and sends an epoch to the loggers."""
        write_history(self.path, state.history)
        with logging_to(self.path, self.config, state.history) as send:

            def log(record: Record) -> None:
                write_history(self.path, state.history)
                send(record)

            yield log

    def _end(self, whole: Method, history: list[Record], data: Data, students: list[str]) -> None:
        """Writes what a finished run has."""
        self._write_weights("last", whole, len(history))
        held_out = self.manifest.images.get("val", 0)
        scores = RunScores.of(history, students, held_out)
        self._write_chosen_student(scores.student.epoch or len(history), whole, history, data)
        scores.write(self.path)

    def _save(self, state: TrainingState) -> None:
        """Writes a checkpoint of the run, and removes those beyond `keep_checkpoints`."""
        keep = self.config.keep_checkpoints
        checkpoints.save(self.path, state, keep, self.manifest.id, self._texts)

    def history(self) -> list[Record]:
        """The records of all completed epochs; those in a checkpoint if the file is damaged."""
        try:
            return read_history(self.path)
        except InputError as error:
            try:
                return checkpoints.last_history(self.path, self.manifest.id)
            except InputError:
                raise error from None

    def finished(self) -> bool:
        return (self.path / RESULT).exists()

    def load_weights(self, which: str = "last") -> None:
        """Loads the weights after the last epoch, or "best" by validation, into `self.method`.

        Raises:
            InputError: the run has no such weights, or they are damaged or not finite.
        """
        self._load_weights(which, self.method)

    def _load_weights(self, which: str, method: Method) -> None:
        name = WEIGHTS[which]
        if not (self.path / name).exists():
            if not self.finished():
                why = "it is not finished"
            elif which == "best" and "val" not in self.manifest.images:
                why = "it held no images out"
            else:
                why = f"{name} is not in it"
            raise InputError(f"{self.path} has no {which} weights: {why}")
        try:
            tensors, _ = read_weights(self.path / name)
        except InputError as error:
            anew = f"codistill train --resume {self.path} writes it anew"
            if which == "best":
                config = f"codistill train --config {self.path / CONFIG} --out NEW"
                anew = f"put it back; or {config} trains the same run again"
            raise InputError(f"{error}; {anew}") from error
        for of, x in tensors.items():
            if x.is_floating_point() and not x.isfinite().all():
                raise InputError(f"{self.path / name} holds a weight that is not finite: {of}")
        load_into(method, tensors, self.path / name)

    def data(self) -> Data:
        """The batches of the run.

        Raises:
            InputError: the images or their classes differ from those that the run began with.
        """
        data = self._data or build_data(self.config, self.device)
        data.train.views = self.method.views
        if (now := list(data.classes)) != (before := self.manifest.classes):
            named = ", ".join(sorted({*now} ^ {*before})[:5]) or "their order"
            raise InputError(
                f"the classes of the data are not those that {self.path} began with ({named}): "
                "restore them, or begin a new run"
            )
        expected = self.manifest.fingerprint
        if data.fingerprint != expected:
            raise InputError(
                f"the data at {self.config.data.root or self.config.data.name} are not those that "
                f"{self.path} began with (fingerprint {data.fingerprint[:12]}, not "
                f"{expected[:12]}): restore them, or begin a new run"
            )
        self._data = data
        return data

    def _build_method(self) -> Method:
        """The method with its first weights: drawn from the seed, or those that the run keeps."""
        starts = self.config.pretrained or self.config.weights
        drawn = dataclasses.replace(self.config, pretrained=False, weights=None)
        height, width = self.manifest.image_size
        classes = self.manifest.classes
        method = build_method(drawn, len(classes), (height, width), classes)
        if starts:
            start = self.path / START
            load_into(method, read_weights(start)[0], start)
        return method

    def _write_weights(self, which: str, method: Method, epoch: int) -> None:
        """Writes the whole method."""
        about = {"epoch": epoch, "method": self.config.method["name"]}
        write_weights(self.path / WEIGHTS[which], method.state_dict(), about)

    def _write_chosen_student(
        self, epoch: int, whole: Method, history: list[Record], data: Data
    ) -> None:
        """Writes the student of an epoch after the last one, unless it is there and intact."""
        if epoch == len(history):
            self._write_student(whole, history[-1], data)
            return
        try:
            if read_weights(self.path / STUDENT)[1].get("epoch") == epoch:
                return
        except InputError:
            pass
        last = {name: x.cpu().clone() for name, x in whole.state_dict().items()}
        self._load_weights("best", whole)
        self._write_student(whole, history[epoch - 1], data)
        load_into(whole, last, self.path)

    def _write_student(self, method: Method, record: Record, data: Data) -> None:
        """Writes the student that the held-out images prefer in an epoch.

        Args:
            method: has the weights of the epoch.
            record: record of the epoch.
            data: data of the run.
        """
        name = preferred(record, self.names_kept())
        write_student(self.path / STUDENT, method, name, int(record["epoch"]), self.config, data)

    def names_kept(self) -> list[str]:
        """The names of the classifiers of which one ships."""
        students = {name: kept.k for name, kept in self.method.students().items()}
        return names_kept(self.config, students, self.manifest.parameters)

    def _note_process(self, state: TrainingState) -> None:
        process = Process.now(self.device, state.epoch, state.step, self.placement)
        self.manifest.processes.append(process)
        self.manifest.write(self.path)
        self._texts = {name: files.read_text(self.path / name) for name in (CONFIG, MANIFEST)}


class _Watched:
    """Batches that report progress, and write a checkpoint between two steps when one is due."""

    def __init__(self, batches: Any, watch: Watch, run: Run, state: TrainingState):
        self.batches, self.watch, self.run, self.state = batches, watch, run, state

    def __len__(self) -> int:
        return len(self.batches)

    def start_at(self, epoch: int, start: int) -> None:
        self.batches.start_at(epoch, start)

    def __iter__(self) -> Iterator[Batch]:
        saved = time.monotonic()
        due = distributed.agreed(
            lambda: time.monotonic() - saved >= self.run.config.checkpoint_seconds
        )
        for batch in self.watch(self.batches):
            yield batch
            if due():
                self.run._save(self.state)
                saved = time.monotonic()
