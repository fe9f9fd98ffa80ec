"""Where a run comes from (versions, git, machine), and the size of its networks."""

import os
import platform
import secrets
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from codistill import clock, distributed, files
from codistill.checks import make
from codistill.errors import InputError
from codistill.methods.flops import forward_flops
from codistill.methods.method import Method
from codistill.methods.parameters import parameter_counts
from codistill.runs.checkpoints import read_or_restore
from codistill.settings.build_data import Data
from codistill.settings.build_method import network_files
from codistill.settings.config import Config
from codistill.settings.start_files import start_fingerprints

MANIFEST = "manifest.json"
_PACKAGES = ("codistill", "torch", "torchvision", "timm", "numpy", "safetensors")


@dataclass(frozen=True)
class Process:
    """One process that trained a run: where it began, with which versions, on which machine.

    Attributes:
        began: date and time.
        epoch: completed epochs when it began.
        step: completed steps of the next epoch.
        python: version of Python.
        packages: versions of codistill and of its main packages; None for one that is not
            installed.
        platform: operating system.
        processor: model of the CPU.
        device: "cpu", or the name of a GPU.
        processes: number of processes that trained together.
        placement: what they divided: "data", the images of every batch; or "peers".
        gpu: versions of "cuda" or "rocm", "cudnn" and "driver", where a GPU trained; the bits of
            the weights depend on them. Empty in runs of early versions too.
        threads: CPU threads of PyTorch.
        cores: cores of the machine.
        git: commit of codistill, and whether it was changed since; None outside a checkout. Empty
            in runs of early versions, whose manifest has it once.
    """

    began: str
    epoch: int
    step: int
    python: str
    packages: dict[str, str | None]
    platform: str
    processor: str
    device: str
    threads: int
    cores: int | None
    git: dict[str, Any] | None = field(default_factory=dict)
    gpu: dict[str, str | None] = field(default_factory=dict)
    processes: int = 1
    placement: str = "data"

    @classmethod
    def now(cls, device: torch.device, epoch: int, step: int, placement: str = "data") -> "Process":
        """This process, which begins after so many epochs and steps."""
        return cls(
            began=clock.now().isoformat(timespec="seconds"),
            epoch=epoch,
            step=step,
            python=platform.python_version(),
            packages={name: _version(name) for name in _PACKAGES},
            platform=platform.platform(),
            processor=_processor(),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            gpu=_gpu_versions() if device.type == "cuda" else {},
            threads=torch.get_num_threads(),
            cores=os.cpu_count(),
            git=_commit_of_codistill(),
            processes=distributed.size(),
            placement=placement,
        )


@dataclass(frozen=True)
class Manifest:
    """The origin of a run and the size of its networks, as manifest.json has them.

    Attributes:
        command: the command line.
        git: commits of "codistill" and of the "folder" in which the command ran, each None
            outside a checkout.
        data: "name" of the data set and "fingerprint" of its images.
        classes: C names, in the order of the labels.
        image_size: height and width of the images that the networks see.
        images: how many images "train", "val" and "test" have.
        parameters: numbers of parameters, see `parameter_counts`.
        processes: one entry for each process that trained.
        flops: FLOPs of evaluating one image, see `forward_flops`. Empty in runs of early versions;
            so are the next three.
        students: for each classifier of which one is kept, the peer that it is or copies.
        networks: fingerprints of the networks that the method was given, by option.
        weights: fingerprints of the files that the peers started from.
        id: a random text, which the run's checkpoints hold too. Empty in runs of early versions.
    """

    command: list[str]
    git: dict[str, dict[str, Any] | None]
    data: dict[str, str]
    classes: list[str]
    image_size: list[int]
    images: dict[str, int]
    parameters: dict[str, int]
    processes: list[Process] = field(default_factory=list)
    flops: dict[str, int] = field(default_factory=dict)
    students: dict[str, int] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    weights: list[str] = field(default_factory=list)
    id: str = ""

    def __post_init__(self) -> None:
        needed = {"data": ("fingerprint",), "parameters": ("peers", "method")}
        for name, keys in needed.items():
            if lacks := [key for key in keys if key not in getattr(self, name)]:
                raise InputError(f"{name} lacks {', '.join(lacks)}")

    @classmethod
    def of(cls, config: Config, method: Method, data: Data) -> "Manifest":
        """The manifest of a run that begins now."""
        image_sets = {"train": data.train, **data.evaluate_on}
        return cls(
            command=sys.argv,
            git={"codistill": _commit_of_codistill(), "folder": _git(Path.cwd())},
            data={"name": config.data.name, "fingerprint": data.fingerprint},
            classes=list(data.classes),
            image_size=list(data.image_size),
            images={name: batches.images for name, batches in image_sets.items()},
            parameters=parameter_counts(method),
            flops=forward_flops(method, data.image_size),
            students={name: kept.k for name, kept in method.students().items()},
            networks={k: files.sha256(f) for k, f in network_files(config.method).items()},
            weights=start_fingerprints(config),
            id=secrets.token_hex(8),
        )

    @classmethod
    def read(cls, run: Path) -> "Manifest":
        """The manifest of a run, by its folder."""
        return read_or_restore(run / MANIFEST, lambda file: make(cls, files.read_json(file), file))

    def write(self, run: Path) -> None:
        files.write_json(run / MANIFEST, asdict(self))

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the images."""
        return self.data["fingerprint"]

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions of codistill that trained the run, each once: commits, or releases."""
        found = []
        for process in self.processes:
            git = self.git.get("codistill") if process.git == {} else process.git
            if git:
                found.append(git["commit"][:9] + (" with changes" if git["changed"] else ""))
            elif release := process.packages.get("codistill"):
                found.append(release)
        return tuple(dict.fromkeys(found))


def _commit_of_codistill() -> dict[str, Any] | None:
    """Commit of this package, and whether it was changed since; None outside a checkout."""
    return _git(Path(__file__).parent, "manifest.py")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, tracked: str | None = None) -> dict[str, Any] | None:
    """The commit of a folder, and whether it has changes that are not committed.

    None outside a repository, and in one that does not keep the file `tracked`: an environment
    inside somebody's repository is no part of it.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if tracked:
            git("ls-files", "--error-unmatch", tracked)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None


def _gpu_versions() -> dict[str, str | None]:
    cudnn, (name, runtime) = torch.backends.cudnn.version(), ("cuda", torch.version.cuda)
    if torch.version.hip:
        name, runtime = "rocm", torch.version.hip
    return {name: runtime, "cudnn": str(cudnn) if cudnn else None, "driver": _driver()}


def _driver() -> str | None:
    """The version of NVIDIA's driver; None where its tool is not installed."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()
