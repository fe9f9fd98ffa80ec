"""Copies of networks that jobs exchange, which share nothing but a folder.

    FOLDER/JOB.safetensors    the newest copy of a job's network: a student's file
    FOLDER/JOB.copies.jsonl   the copies that taught a job: one line for each renewal

A copy is written whole or not at all, and nobody waits for another: a job takes what is there.
"""

import functools
import hashlib
import json
import math
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor, nn

from codistill import distributed
from codistill.checks import check, make, setting
from codistill.clock import now
from codistill.errors import InputError, MissingExtraError, reason, require_positive
from codistill.files import place_of, stats_of
from codistill.messages import note
from codistill.methods.losses import at_least_float32
from codistill.methods.teacher import bring_together, few
from codistill.networks import Network
from codistill.networks.peers import Peers
from codistill.networks.student import read_student, save_student
from codistill.tensor_files import load_into, read_weights

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_BUILT_BY = ("network", "classes", "image_size")


@dataclass(frozen=True)
class _Stamp:
    """The moment of a copy: epoch and step of its job, and the clock in seconds since 1970."""

    epoch: int = setting(0, at_least=0)
    step: int = setting(0, at_least=0)
    time: float = setting(0.0, at_least=0)

    def __post_init__(self) -> None:
        check(self)


class Copy(NamedTuple):
    """A copy of another job's network.

    Attributes:
        job: the name of the job.
        content: the bytes of its file.
        network: the network, frozen and in eval mode.
        about: what the file says of itself.
        stamp: the moment of the copy.
    """

    job: str
    content: bytes
    network: Network
    about: dict[str, Any]
    stamp: _Stamp


class Exchange(nn.Module):
    """The copies in use of one job, and the folder where it finds and leaves them.

    The copies are in the state dict, as the bytes of their files: a training that is resumed goes
    on with them, whatever lies in the folder by then.

    Args:
        peers: one network, made by `build_network`.
        folder: an absolute path. It is made if it is absent.
        job: the name of this job, of letters, digits, - and _; no other job has it.
        every: steps between two renewals.
        oldest: age in seconds from which a copy is left out. Default: no copy is too old.

    Attributes:
        copies: the copies in use, in the order of their jobs' names.
        steps: steps that this job has taken.
    """

    def __init__(self, peers: Peers, folder: str, job: str, every: int, oldest: float | None):
        super().__init__()
        require_positive(every=every)
        if oldest is not None:
            require_positive(oldest=oldest)
        if len(peers) != 1:
            raise InputError(f"a job with a folder trains one peer, not {len(peers)}: give peers=1")
        if not _NAME.fullmatch(job):
            raise InputError(f"job is {job!r}: give a name of letters, digits, - and _")
        self.folder = place_of(folder)
        if not self.folder.is_absolute():
            raise InputError(f"folder is {folder!r}: give an absolute path, equal for all jobs")
        if not peers.architectures[0]:
            raise InputError(
                "other jobs could not build a copy of this network: make it by build_network(...)"
            )
        self._peers = [peers]  # in a list, so that it is no module of this one
        self.job, self.every, self.oldest = job, every, oldest
        self.copies: list[Copy] = []
        self.steps = 0
        self._next = 0  # the step from which copies are renewed
        self._noted: set[str] = set()
        self._image_size: tuple[int, int] | None = None
        self._left: list[tuple[str, int, int]] = []  # the file as this job wrote it last

    def begin_step(self, epoch: int, image_size: tuple[int, int], teaching: bool) -> None:
        """Publishes the network and renews the copies if it is time, and counts a step.

        Args:
            epoch: the epoch, from 0.
            image_size: height and width of the images in pixels.
            teaching: whether the burn-in is over. Before that nothing is published or read.
        """
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            raise InputError(
                "cuda_graphs replay a step without Python, which exchanges copies: leave out "
                "cuda_graphs, or the folder"
            )
        if teaching and self.steps >= self._next:
            self._next = self.steps + self.every
            self._image_size = image_size
            if not distributed.rank():
                self._try(lambda: self._publish(epoch, image_size), "nothing is published")
            self._renew(epoch)
        self.steps += 1

    def steps_behind(self) -> float:
        """Steps of this job less those of a copy, the mean over copies; 0 without any."""
        return sum(self.steps - c.stamp.step for c in self.copies) / max(1, len(self.copies))

    @torch.no_grad()
    def log_mean(
        self, images: Float[Tensor, "B 3 H W"], temperature: float
    ) -> Float[Tensor, "B C"]:
        """The logarithm of the mean of the copies' softened probabilities. There are copies."""
        z = torch.stack([copy.network.to(images)(images) for copy in self.copies])
        log_p = (at_least_float32(z) / temperature).log_softmax(dim=-1)
        return log_p.logsumexp(dim=0) - math.log(len(self.copies))

    def get_extra_state(self) -> Tensor:
        """Steps and copies, as the bytes of a safetensors file."""
        steps = {"steps": torch.tensor([self.steps, self._next])}
        return _as_tensor(save(steps | {c.job + "/": _as_tensor(c.content) for c in self.copies}))

    def set_extra_state(self, state: Tensor) -> None:
        """Restores what `get_extra_state` returned."""
        tensors = load(state.cpu().numpy().tobytes())
        self.steps, self._next = tensors.pop("steps").tolist()
        contents = {name[:-1]: x.numpy().tobytes() for name, x in sorted(tensors.items())}
        self.copies = [self._parsed(job, content) for job, content in contents.items()]

    def _publish(self, epoch: int, image_size: tuple[int, int]) -> None:
        (peers,) = self._peers
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f".{self.job}.safetensors.*.tmp"):  # of a killed process
            leftover.unlink(missing_ok=True)
        about = {
            "network": peers.architectures[0],
            "classes": list(peers.classes) or [str(c) for c in range(peers.num_classes)],
            "image_size": list(image_size),
            "epoch": epoch,
            "step": self.steps,
            "time": now().timestamp(),
        }
        file = self._file(self.job)
        if self._left and file.exists() and stats_of([file]) != self._left:
            self._note(
                f"{file} is not what this job wrote there: another job has the name {self.job!r} "
                "too, and neither learns from the other; give each its own"
            )
        save_student(file, peers.student(0), about)
        self._left = stats_of([file])

    def _renew(self, epoch: int) -> None:
        """Takes the copies that are in the folder now; all processes of a job take the same."""
        time, found = distributed.of_first(
            (now().timestamp(), {} if distributed.rank() else self._read())
        )
        copies = []
        for job, content in found.items():
            try:
                copy = self._parsed(job, content)
            except (InputError, MissingExtraError, OSError) as error:
                self._note(f"the copy of job {job!r} does not teach: {reason(error)}")
                continue
            if self.oldest is None or time - copy.stamp.time <= self.oldest:
                copies.append(copy)
        self.copies = copies
        if not distributed.rank():
            self._try(lambda: self._log(epoch, time), "the copies in use are not logged")

    def _read(self) -> dict[str, bytes]:
        """The contents of the other jobs' files, by the name of the job."""
        files: list[Path] = []
        found: dict[str, bytes] = {}

        def take(file: Path) -> None:
            if file.is_file():
                found[file.stem] = file.read_bytes()

        find = self.folder.glob("*.safetensors")
        self._try(lambda: files.extend(sorted(find)), "no copies are read")
        for file in files:
            if file.stem != self.job and _NAME.fullmatch(file.stem):
                why = f"the copy of job {file.stem!r} does not teach"
                self._try(functools.partial(take, file), why)
        return found

    def _parsed(self, job: str, content: bytes) -> Copy:
        """The copy in a file's content. Raises InputError if it cannot teach this job's network."""
        (peers,) = self._peers
        before = next((c for c in self.copies if c.job == job), None)
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            file = Path(folder) / self._file(job).name
            try:
                file.write_bytes(content)
                tensors, about = read_weights(file)
                stamp = make(_Stamp, about, file)
                if not all(x.isfinite().all() for x in tensors.values()):
                    raise InputError(f"{file} holds weights that are not finite")
                if before and all(before.about.get(n) == about.get(n) for n in _BUILT_BY):
                    network = before.network.clone().cpu()  # to cut a network again takes seconds
                    load_into(network, network.from_original(tensors), file)
                else:
                    own = about.get("network") == peers.architectures[0]
                    network, _ = read_student(file, trust_code=own)
                    self._require_fit(network, file)
                bring_together(peers, network, about)
                if peers.classes and set(about["classes"]) != set(peers.classes):
                    raise InputError(
                        f"its classes are {few(about['classes'])}, and those of the data "
                        f"{few(peers.classes)}"
                    )
            except InputError as error:
                raise InputError(str(error).replace(str(file), str(self._file(job)))) from error
        return Copy(job, content, network.requires_grad_(False).eval(), about, stamp)

    def _require_fit(self, network: Network, file: Path) -> None:
        """Raises InputError if a network does not take this job's images."""
        if self._image_size is None:  # a copy of a checkpoint, which was tried before
            return
        try:
            with torch.no_grad():
                z = network(torch.zeros(1, 3, *self._image_size))
            if z.shape != (1, network.num_classes):
                raise ValueError(f"logits of the shape {tuple(z.shape)}")
        except Exception as error:
            height, width = self._image_size
            raise InputError(
                f"{file} takes no images of {height}x{width} ({reason(error)})"
            ) from error

    def _log(self, epoch: int, time: float) -> None:
        copies = [
            {
                "job": c.job,
                "epoch": c.stamp.epoch,
                "step": c.stamp.step,
                "seconds_old": round(time - c.stamp.time, 3),
                "sha256": hashlib.sha256(c.content).hexdigest(),
            }
            for c in self.copies
        ]
        line = {"epoch": epoch, "step": self.steps, "copies": copies}
        with open(self.folder / f"{self.job}.copies.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _file(self, job: str) -> Path:
        return self.folder / f"{job}.safetensors"

    def _try(self, act: Callable[[], object], otherwise: str) -> None:
        """Does something with the folder. A failure is noted: a training outlives it."""
        try:
            act()
        except OSError as error:
            self._note(f"{otherwise}: {reason(error)}")

    def _note(self, line: str) -> None:
        """Logs a line once."""
        if line not in self._noted:
            self._noted.add(line)
            note(line)


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
