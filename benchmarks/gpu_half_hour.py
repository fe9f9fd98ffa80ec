"""The first half hour on a GPU, in the order that finds faults fastest.

    python benchmarks/gpu_half_hour.py fetch wheels      # beforehand, where there is a network
    python benchmarks/gpu_half_hour.py install wheels    # on the machine with the GPU
    python benchmarks/gpu_half_hour.py 0                 # and so on to 10; each below nine minutes
    python benchmarks/gpu_half_hour.py all               # those that have not ended well yet
    python benchmarks/gpu_half_hour.py all --device cpu --small     # a rehearsal without a GPU

A piece writes its log to OUT/piece_N.log and its figures to OUT/*.json. OUT is `--out`, or else the
variable OUT, or else gpu_half_hour/. The exit status is the number of commands that failed. A piece
that is cut keeps its log so far; `all` then goes on with it.

    0   the machine: GPU, versions, a compiler
    1   the tests that wait for CUDA: waits, optimizers, recorded steps
    2   every method, its options, resuming, analysis and whole runs on the GPU
    3   every method through a run, fp32 and bf16, with and without recorded steps, and RandAugment;
        losses have to agree with the CPU's and with each other
    4   the same bits from the same seed; a run that is killed and resumed; resumed on the CPU
    5   kernels and time of a step: deterministic as the command trains, and other settings
    6   an epoch of FFL: fp32, bf16, recorded
    7   steps of large networks, as a share of the device's peak; use of the GPU beside it
    8   photographs from worker processes; then with RandAugment, and a warning of every wait
    9   the edges: memory that is not enough, a comparison on one GPU with its report, and what uses
        the GPU meanwhile
    10  an epoch of FFL with compiled stages
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 9 * 60.0  # seconds of a piece
WHEELS = Path(__file__).with_name("gpu_wheels.txt")
"""What a machine with PyTorch may lack, with all that it needs but PyTorch itself."""


class Half:
    """A piece at work: where it writes, on which device, and how many commands failed."""

    def __init__(self, device: str, small: bool, out: Path, log: TextIO):
        self.device, self.small, self.out, self.log = device, small, out, log
        self.failed = 0
        self.until = time.monotonic() + LIMIT
        path = [str(ROOT / part) for part in ("src", "tests", "benchmarks")]
        path += filter(None, [os.environ.get("PYTHONPATH")])  # where wheels may be
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # read once, at the first product
            "PYTHONUNBUFFERED": "1",
        }

    def say(self, text: str) -> None:
        print(text, flush=True)
        self.log.write(f"{text}\n")
        self.log.flush()

    def run(self, *command: str, kill_when: Path | None = None, **environment: str) -> int:
        """Runs a command with its output in the log, and on the screen; returns its status.

        Args:
            command: its words.
            kill_when: folder; the command is killed, on purpose, when a file is in it.
            environment: more variables.
        """
        self.say(f"\n$ {' '.join(command)}")
        begin = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        except FileNotFoundError:
            self.say(f"there is no {command[0]}")
            return 127

        def watch() -> None:
            while process.poll() is None:
                there = kill_when is not None and any(kill_when.glob("*.pt"))
                if there or time.monotonic() > self.until:
                    os.killpg(process.pid, signal.SIGKILL)
                    return
                time.sleep(0.05)

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                self.say(line.rstrip())
            status = process.wait()
        finally:
            if process.poll() is None:  # this script is ended
                os.killpg(process.pid, signal.SIGKILL)
            watcher.join()
        self.say(f"[status {status}, {time.monotonic() - begin:.0f} s]")
        if status and kill_when is None:
            self.failed += 1
        return status

    @contextlib.contextmanager
    def beside(self, name: str, *command: str) -> Iterator[None]:
        """Runs a command beside the block, with its output in OUT/NAME.log, if it is there."""
        self.say(f"\n$ {' '.join(command)} &")
        with (self.out / f"{name}.log").open("w") as output:
            try:
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            except FileNotFoundError:
                self.say(f"there is no {command[0]}")
                yield
                return
            try:
                yield
            finally:
                process.terminate()
                process.wait()

    def python(self, *words: str, **more: Any) -> int:
        return self.run(sys.executable, *words, **more)

    def train(self, *words: str, **more: Any) -> int:
        command = ("-m", "codistill", "train", "--device", self.device, "--loggers", "none")
        return self.python(*command, *words, **more)

    def tests(self, *words: str) -> int:
        return self.python("-m", "pytest", "-o", "addopts=", "-W", "default", "-q", "-rfE", *words)

    def benchmark(self, name: str, *words: str) -> int:
        """benchmarks/gpu.py with its figures in OUT/NAME.json."""
        small = "--depth 8 --images 260 --tests 64 --workers 0 --large_batch 4 --large_size 32"
        small += " --large_steps 2 --rounds 1 --tflops 1 --terabytes 0.01"
        rest = small.split() if self.small else []
        words = ("--device", self.device, "--json", str(self.out / f"{name}.json"), *words, *rest)
        return self.python("benchmarks/gpu.py", *words)


def machine(half: Half) -> None:
    half.run("nvidia-smi")
    half.run("gcc", "--version")
    half.python(
        "-c",
        "import torch, jsonargparse, captum, sklearn, codistill; print(torch.__version__, "
        "torch.version.cuda, torch.backends.cudnn.version(), torch.cuda.is_available() and "
        "(torch.cuda.get_device_name(), torch.cuda.get_device_capability()))",
    )


def waiting_tests(half: Half) -> None:
    files = (
        "training/test_waiting.py",
        "methods/test_optimizers.py",
        "training/test_cuda_graph.py",
    )
    half.tests("-k", "gpu", *(f"tests/{file}" for file in files))


def every_case(half: Half) -> None:
    some = ("-k", "ffl or pcl") if half.small else ()
    half.tests("-m", "not slow", *some, "tests/test_pretended_gpu.py", "tests/test_on_gpu.py")


def every_method(half: Half) -> None:
    options = ("--small",) if half.small else ()
    file = str(half.out / "methods.json")
    half.python(__file__, "methods", "--device", half.device, "--json", file, *options)


def same_bits(half: Half) -> None:
    networks = ["resnet8"] if half.small else ["resnet20", "torchvision/resnet18"]
    with tempfile.TemporaryDirectory() as folder:
        for network in networks:
            name, sums = network.replace("/", "_"), []
            words = ("--data", "digits", "--network", network, "--method", "dml", "--threads", "1")
            words += ("--epochs", "4", "--checkpoint_seconds", "1")
            for i in ("a", "b", "killed"):
                run = Path(folder, f"{name}_{i}")
                if i == "killed":
                    half.train(*words, "--out", str(run), kill_when=run / "checkpoints")
                    half.python("-m", "codistill", "train", "--resume", str(run))
                else:
                    half.train(*words, "--out", str(run))
                file = run / "weights.safetensors"
                sums.append(file.read_bytes() if file.exists() else None)
            same = sums[0] is not None and sums[0] == sums[1] == sums[2]
            half.say(f"{network}: the same bits again {sums[0] == sums[1]}, resumed {same}")
            half.failed += not same
        on_cpu = Path(folder, "on_cpu")
        words = ("--data", "digits", "--network", "resnet8", "--epochs", "3", "--threads", "1")
        words += ("--checkpoint_seconds", "1", "--out", str(on_cpu))
        half.train(*words, kill_when=on_cpu / "checkpoints")
        resume = ("-m", "codistill", "train", "--resume", str(on_cpu), "--device", "cpu")
        half.python(*resume, CUDA_VISIBLE_DEVICES="")


def kernels(half: Half) -> None:
    options = ("--small",) if half.small else ()
    file = str(half.out / "kernels.json")
    half.python(__file__, "kernels", "--device", half.device, "--json", file, *options)


def epoch(half: Half) -> None:
    ways = ("bf16",) if half.small else ("fp32", "bf16", "bf16, free", "bf16, cuda_graphs")
    half.benchmark("epoch", "--workers", "8", "--rounds", "1", "--ways", *ways)


def large(half: Half) -> None:
    ways = ("bf16",) if half.small else ("bf16", "bf16, free", "bf16, cuda_graphs")
    networks = ("resnet8", "resnet8") if half.small else ()
    words = ("--small", "0", "--rounds", "2", "--ways", *ways, "--large", *networks)
    with half.beside("use_of_the_gpu", "nvidia-smi", "dmon", "-s", "um"):
        half.benchmark("large", *words)


def photographs(half: Half) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sys.path.append(str(ROOT / "tests"))
        from photo_fakes import write_classes

        count, size = (20, 40) if half.small else (1500, 400)
        write_classes(Path(folder, "photos"), {"cat": count, "dog": count}, width=size, height=size)
        words = ("--data", "folder", "--data.root", f"{folder}/photos", "--method", "dml")
        words += ("--precision", "bf16")
        if half.small:
            words += ("--network", "resnet8", "--data.image_size", "16", "--batch_size", "8")
            words += ("--data.workers", "1")
        else:
            words += ("--network", "torchvision/resnet18", "--batch_size", "256")
            words += ("--data.workers", "14")
        half.train(*words, "--out", f"{folder}/run", "--epochs", "1" if half.small else "3")
        code = "import sys, torch; from codistill.command.main import main\n"
        if half.device != "cpu":
            code += "torch.cuda.set_sync_debug_mode('warn')\n"
        code += "sys.exit(main(sys.argv[1:]))"
        train = ("train", "--device", half.device, "--loggers", "none", "--out", f"{folder}/waits")
        words = (*train, *words, "--epochs", "1", "--data.rand_augment", "9")
        half.python("-W", "default", "-c", code, *words)


def edges(half: Half) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if half.device != "cpu":
            code = (
                "import torch; torch.cuda.set_per_process_memory_fraction(0.01)\n"
                "from codistill.command.main import main\n"
                "words = 'train --data digits --network wrn_28_10 --batch_size 512 --epochs 1 '\n"
                f"assert main((words + '--device cuda --out {folder}/o').split()) == 2"
            )
            half.python("-c", code)
        network = "resnet8" if half.small else "resnet20"
        settings = {"data": "digits", "peers": 2, "epochs": 1, "device": half.device}
        tree = {"settings": settings, "networks": [network], "seeds": [0], "methods": {"dml": {}}}
        Path(folder, "file.yaml").write_text(json.dumps(tree))  # which is YAML too
        words = ("compare", f"{folder}/file.yaml", "--out", f"{folder}/c", "--parallel", "2")
        users = ("--query-compute-apps=pid,name,used_memory", "--format=csv", "-l", "1")
        with half.beside("users_of_the_gpu", "nvidia-smi", *users):
            half.python("-m", "codistill", *words)
        code = (
            "from codistill.command.main import main\n"
            "assert main('train --data digits --recompute true --cuda_graphs true'.split()) == 2"
        )
        half.python("-c", code)


def compiled(half: Half) -> None:
    ways = ("bf16",) if half.small else ("bf16", "bf16, compile", "bf16, compile, cuda_graphs")
    half.benchmark("compiled", "--workers", "8", "--rounds", "1", "--ways", *ways)


PIECES: list[Callable[[Half], None]] = [
    *(machine, waiting_tests, every_case, every_method, same_bits, kernels, epoch, large),
    *(photographs, edges, compiled),
]


def train_methods(device: str, small: bool) -> Iterator[dict[str, Any]]:
    """A short run of every method on digits, in every precision, with and without recording.

    Its first epoch has to have the loss of the CPU's in fp32, to 5 %, and to 10 % in bf16; recorded
    steps have to have that of steps that are not recorded, to 0.1 %.
    """
    from codistill.names import METHODS
    from codistill.runs.run import Run
    from codistill.settings.config import Config
    from codistill.settings.data_config import DataConfig

    names = ["independent", "pcl", "kd"] if small else list(METHODS)
    ways = [("cpu", "fp32", False)]
    ways += [(device, precision, r) for precision in ("fp32", "bf16") for r in (False, True)]
    common: dict[str, Any] = {
        "network": "resnet8" if small else "resnet20",
        "peers": 3,
        "epochs": 1 if small else 2,
        "batch_size": 256 if small else 64,
        "loggers": "none",
    }
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder, "independent0-1", "student.safetensors")
        for name, rand_augment in [*((name, 0) for name in names), ("dml", 9)]:
            needs = {"teacher": str(teacher)} if name in ("kd", "shake") else {}
            losses: dict[Any, float] = {}  # of the first epoch
            for number, way in enumerate(ways):
                on, precision, recorded = way
                about = {"method": name, "rand_augment": rand_augment, "device": on}
                about |= {"precision": precision, "cuda_graphs": recorded}
                try:
                    config = Config(
                        method={"name": name, **needs},
                        shared=2 if name == "one" else 0,
                        data=DataConfig(name="digits", val_fraction=0.1, rand_augment=rand_augment),
                        device=on,
                        precision=precision,
                        cuda_graphs=recorded,
                        out=str(Path(folder, f"{name}{rand_augment}-{number}")),
                        **common,
                    )
                    first, *more = Run.create(config).train()
                    losses[way] = loss = first["loss/ce"]
                    speed = [*more, first][0]["images_per_second"]
                    about |= {"loss": loss, "images/s": round(speed)}
                    share = 0.05 if precision == "fp32" else 0.1
                    checks = [("the CPU", ways[0], share)]
                    checks += [("steps not recorded", (on, precision, False), 0.001)] * recorded
                    for of, other, share in checks:
                        expected = losses.get(other, loss)
                        if abs(loss - expected) > share * abs(expected):
                            about["error"] = f"the loss of {of} is {expected}"
                    yield about
                except Exception as error:  # the next way is tried
                    yield about | {"error": f"{type(error).__name__}: {str(error)[:300]}"}


def count_kernels(device: str, small: bool) -> Iterator[dict[str, Any]]:
    """Kernels and milliseconds of a step, under several settings of PyTorch."""
    import contextlib

    import torch

    from codistill import Batch, Peers, TrainingState, build_network
    from codistill.methods import method_class
    from codistill.training.device import autocast, deterministic

    where, on_gpu = torch.device(device), device != "cpu"

    @contextlib.contextmanager
    def filling() -> Iterator[None]:
        with deterministic(where):
            torch.utils.deterministic.fill_uninitialized_memory = True
            yield

    ways: dict[str, Callable[[], Any]] = {
        "PyTorch's own": contextlib.nullcontext,
        "as the command": lambda: deterministic(where),
        "filling fresh memory": filling,
        "cudnn.benchmark": lambda: torch.backends.cudnn.flags(enabled=True, benchmark=True),
    }
    cases = [("ffl", "resnet8" if small else "resnet32", 32, 2)]
    cases += [] if small else [("dml", "torchvision/resnet18", 224, 0)]
    activity = torch.profiler.ProfilerActivity
    for (name, network, side, shared), way in product(cases, ways):
        size = 8 if small else 256
        peers = Peers([build_network(network, 100) for _ in range(2)], shared)
        method = method_class(name)(peers).to(memory_format=torch.channels_last).to(where).train()
        training = TrainingState(method)
        images = torch.randn(size, 3, side, side).to(where, memory_format=torch.channels_last)
        batch = Batch([images], torch.randint(100, (size,), device=where))

        def step(method: Any = method, training: Any = training, batch: Any = batch) -> None:
            with autocast(where, "bf16"):
                method.training_step(batch, training.optimizers, 0)
            if on_gpu:
                torch.cuda.synchronize()

        with ways[way]():
            for _ in range(2 if small else 5):
                step()
            begin = time.perf_counter()
            for _ in range(2 if small else 20):
                step()
            seconds = (time.perf_counter() - begin) / (2 if small else 20)
            with torch.profiler.profile(
                activities=[activity.CUDA if on_gpu else activity.CPU]
            ) as profile:
                step()
        cuda = torch.autograd.DeviceType.CUDA  # the others are calls of the driver
        counted = sum(
            event.count
            for event in profile.key_averages()
            if not on_gpu or event.device_type == cuda
        )
        yield {"method": name, "network": network, "setting": way, "kernels": counted} | {
            "ms": 1000 * seconds
        }


def write(found: Iterator[dict[str, Any]], file: Path) -> int:
    """Prints and writes records as they come; returns whether one of them has an error."""
    records = []
    for record in found:
        records.append(record)
        print("  ".join(f"{name}={value}" for name, value in record.items()), flush=True)
        file.write_text(json.dumps(records, indent=1) + "\n")
    return any("error" in record for record in records)


def left_of(out: Path) -> list[int]:
    """The pieces whose logs do not say that they ended without a failure."""
    logs = {number: out / f"piece_{number}.log" for number in range(len(PIECES))}
    return [
        number
        for number, log in logs.items()
        if not log.exists() or f"\npiece {number}: 0 failed, " not in log.read_text()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("piece", help="a number, all, fetch or install")
    parser.add_argument("wheels", nargs="?", type=Path, help="folder of the wheels")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="the least that goes through it all")
    out = Path(os.environ.get("OUT", "gpu_half_hour"))
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--json", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.piece in ("fetch", "install"):
        pip = [sys.executable, "-m", "pip"]
        common = ["--no-deps", "-r", str(WHEELS)]
        pure = ["--only-binary=:all:", "--python-version", "3.12"]  # of that machine
        fetch = ["download", "--dest", str(options.wheels), *pure, *common]
        install = ["install", "--no-index", "--find-links", str(options.wheels), *common]
        return subprocess.call([*pip, *(fetch if options.piece == "fetch" else install)])
    inner = {"methods": train_methods, "kernels": count_kernels}.get(options.piece)
    if inner:
        return write(inner(options.device, options.small), options.json)
    options.out.mkdir(parents=True, exist_ok=True)
    numbers = [int(options.piece)] if options.piece != "all" else left_of(options.out)
    failed = 0
    for number in numbers:
        with (options.out / f"piece_{number}.log").open("w") as log:
            half = Half(options.device, options.small, options.out.resolve(), log)
            begin = time.monotonic()
            PIECES[number](half)
            took = time.monotonic() - begin
            half.say(f"\npiece {number}: {half.failed} failed, {took:.0f} s")
            failed += half.failed
    return failed


if __name__ == "__main__":
    sys.exit(main())
