"""The benchmarks run, and measure what they say: each once, on as little as possible."""

import importlib
import json
import math
import sys

import pytest
import torch

import bench
import cost
import libraries
import peak
import photographs
from codistill import Batch
from figures import Figure
from interleave import Worker, interleave, ratio, timed
from lean import LeanFFL
from library_worker import Stopwatch
from ours import PLAIN_SGD, SGD, batches, build_method, random_split
from plain import PlainFFL, pil_batches


def ffl_and_plain(depth=8, classes=100):
    """Our FFL and the plain one with the same weights, in float64."""
    method = build_method("ffl", f"resnet{depth}", 2, 2, ramp_up=0).double()
    plain = PlainFFL(depth, classes, 2, PLAIN_SGD)
    for theirs, ours in ((plain.model, method.peers), (plain.fusion, method.fusion)):
        theirs.double()
        ours_in_order = iter(ours.state_dict().values())
        theirs.load_state_dict({n: next(ours_in_order) for n in theirs.state_dict()})
        assert not list(ours_in_order)
    return method, plain


def a_batch(n=6):
    rng = torch.Generator().manual_seed(1)
    images = torch.randn(n, 3, 32, 32, generator=rng, dtype=torch.float64)
    return images, torch.randint(100, (n,), generator=rng)


# What is compared is the same mathematics


def test_the_plain_loop_trains_as_ours_does():
    method, plain = ffl_and_plain()
    optimizers, (images, labels) = method.optimizers(SGD), a_batch()
    for _ in range(5):
        terms = method.training_step(Batch([images], labels), optimizers, 0)
        plain.meters.clear()
        plain.step(images, labels)
        loss = float(sum(terms.values()).detach())
        assert loss == pytest.approx(plain.meters["loss"].sum / 6, rel=1e-9)
    for theirs, ours in ((plain.model, method.peers), (plain.fusion, method.fusion)):
        pairs = zip(theirs.state_dict().values(), ours.state_dict().values(), strict=True)
        for x, y in pairs:
            torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-10)


def test_the_lean_loop_has_our_loss():
    method, _ = ffl_and_plain()
    images, labels = a_batch()
    lean = LeanFFL(method, random_split(4), 2, bf16=False)
    with torch.no_grad():
        ours = sum(method.losses(method([images]), labels, 0).values())
        loss = lean.loss(images, labels)  # whose cross-entropy is float32
    assert float(loss) == pytest.approx(float(ours), rel=1e-5)


def test_all_loops_see_every_image_once_in_an_epoch():
    split = random_split(10)
    split.labels[:] = torch.arange(10)
    plain = [y for _, labels in pil_batches(split.images, split.labels, 4) for y in labels.tolist()]
    ours = [y for batch in batches(split, 4) for y in batch.labels.tolist()]
    assert sorted(plain) == sorted(ours) == list(range(10))


def test_the_plain_loop_augments_as_ours_does():
    split = random_split(300)
    (theirs,), (ours,) = (
        [x for x, _ in pil_batches(split.images, split.labels, 300)],
        [batch.views[0] for batch in batches(split, 300)],
    )
    assert theirs.shape == ours.shape
    assert theirs.mean().abs() < 0.2
    assert theirs.std() == pytest.approx(1.1, abs=0.05)  # CIFAR's statistics, random pixels
    assert ours.std() == pytest.approx(1.0, abs=0.01)


# How it is measured


def test_contenders_take_turns_and_warm_ups_are_not_counted():
    calls = []

    def contender(name, value):
        return lambda: calls.append(name) or value + len(calls)

    seconds = interleave({"a": contender("a", 0), "b": contender("b", 100)}, rounds=2, warm_up=1)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert seconds == {"a": [4, 5], "b": [103, 106]}


def test_a_ratio_is_the_median_over_rounds():
    figure = ratio("x", slow=[2, 8, 9], fast=[1, 2, 1], target=">= 4")
    assert (figure.value, figure.low, figure.high, figure.best) == (4, 3, 6.5, 2)
    assert figure.met()
    assert not Figure("x", 1.2, target="<= 1.05").met()
    assert Figure("x", 1.2).met() is None


@pytest.mark.parametrize(("clock", "expected"), [("wall", True), ("cpu", False)])
def test_the_clock_of_the_processor_does_not_see_waiting(clock, expected):
    import time

    assert (timed(lambda: time.sleep(0.05), clock)() > 0.04) is expected


def test_a_worker_does_a_round_when_it_is_asked_to():
    code = "print('ready', flush=True)\nfor i, _ in enumerate(open(0)): print(i + 0.5, flush=True)"
    with Worker([sys.executable, "-c", code]) as worker:
        assert [worker(), worker()] == [0.5, 1.5]


def test_a_worker_that_ends_says_why():
    with pytest.raises(SystemExit, match="ended early:\n.*no such module"):
        Worker([sys.executable, "-c", "raise SystemExit('no such module')"])


def test_a_stopwatch_times_a_pass_with_what_is_done_in_it():
    ticks = iter([10.0, 17.0])
    watch = Stopwatch(torch.utils.data.DataLoader([1, 2]), now=lambda: next(ticks))
    assert len(list(watch)) == len(watch) == 2
    assert watch.seconds == 7


# Every benchmark

TINY = {
    "training": "--depth 8 --batch 4 --steps 2",
    "evaluation": "--depth 8 --batch 4 --steps 2",
    "augmentation": "--batch 4 --steps 2",
    "operations": "--depth 8",
    "cost": "--network resnet8 --batch 4 --peers 1 2 --skip memory",
    "methods": "--batch 4",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_runs_and_writes_its_figures(name, tmp_path, capsys):
    file = tmp_path / "figures.json"
    argv = [*TINY[name].split(), "--rounds=2", f"--json={file}"]
    figures = importlib.import_module(name).main(argv)
    assert all(math.isfinite(f.value) and f.value > 0 for f in figures)
    written = json.loads(file.read_text())
    assert [f["name"] for f in written["figures"]] == [f.name for f in figures]
    assert written["machine"]["torch"] == torch.__version__
    out = capsys.readouterr().out
    assert all(f.name in out for f in figures)


@pytest.mark.parametrize("loop", ["plain", "ffl"])
def test_the_peak_of_a_training_is_that_of_the_system(loop, capsys):
    peak.main([loop, "resnet8", "2", "2", "4", "fp32", "1", "16"])
    start, end = map(float, capsys.readouterr().out.split())
    assert 50 < start <= end < 20_000


@pytest.mark.slow
def test_the_memory_of_peers_is_measured_in_processes_of_their_own(tmp_path):
    options = [
        "--network",
        "resnet8",
        "--batch",
        "16",
        "--peers",
        "1",
        "2",
        "--skip",
        "time",
        "--images",
        "500",
    ]
    figures = {f.name: f.value for f in cost.main(options)}
    assert figures["memory of independent K=1 against 1 alone"] == 1
    assert 0.3 < figures["memory of independent K=2 against 2 alone"] < 1.2


@pytest.mark.slow
def test_epochs_and_large_steps_are_timed_on_any_device():
    import gpu

    options = ["--device=cpu", "--ways", "bf16, cuda_graphs", "--depth=8", "--images=130"]
    options += ["--workers=0", "--rounds=1", "--large", "resnet8", "resnet8", "--large_batch=4"]
    options += ["--tests=20", "--tflops=100", "--terabytes=1"]
    figures = {f.name: f for f in gpu.main([*options, "--large_size=16", "--large_steps=2"])}
    assert figures["an epoch, floor of the device"].value < figures["an epoch, plain"].value
    assert figures["bf16, cuda_graphs against plain"].value > 0
    assert 0 < figures["large, bf16, cuda_graphs, of the peak"].value < 1


def test_the_peak_of_a_device_is_its_own_or_asked_for():
    import gpu

    assert gpu.peak("NVIDIA H100 80GB HBM3", None, None) == (989.0, 3.35)
    assert gpu.peak("NVIDIA H100 PCIe", None, 1.5) == (756.0, 1.5)
    assert gpu.peak("NVIDIA H200", None, None) == (989.0, 4.8)
    with pytest.raises(SystemExit, match="no peak of 'cpu' is known: give --tflops"):
        gpu.peak("cpu", 1.0, None)


@pytest.mark.slow
def test_runs_side_by_side_are_timed_until_the_last():
    import parallel

    options = ["--runs", "1", "2", "--depth=8", "--batch=4", "--steps=2", "--rounds=1"]
    figures = {f.name: f for f in parallel.main(options)}
    one, two = figures["1 at a time, all"].value, figures["2 at a time, all"].value
    assert figures["2 at a time against 1 at a time"].value == pytest.approx(two / one)


@pytest.mark.slow
def test_processes_that_train_together_are_measured():
    import distributed

    options = ["--network", "resnet8", "--batch=8", "--steps=4", "--rounds=1", "--processes=2"]
    figures = {f.name: f.value for f in distributed.main(options)}
    for placement in ("data", "peers"):
        assert 0 < figures[f"2 processes, {placement}: talking, of a step"] < 100
    sent = [figures[f"2 processes, {name}: sent by each in a step"] for name in ("data", "peers")]
    assert 0.3 < sent[0] < 3  # two ResNet-8 of 0.08 M weights
    assert 0.1 < sent[1] < 0.2  # 8 maps of 64 x 8 x 8, and logits
    tensors = [
        figures[f"{name}: tensors of each"] for name in ("2 processes, data", "2 processes, peers")
    ]
    assert tensors[1] < tensors[0]
    assert distributed.modelled(8, 40e9) == pytest.approx(0.105, abs=0.005)


@pytest.mark.slow
def test_the_start_is_measured():
    import start

    figures = {f.name: f.value for f in start.main(["--images", "500", "--network", "resnet8"])}
    assert figures["codistill --help"] < figures["first step on cached data"]


@pytest.mark.slow
@pytest.mark.skipif(not libraries.PYTHON.exists(), reason="the libraries are not installed")
def test_the_libraries_train():
    options = ["--depth", "8", "--batch", "4", "--steps", "2", "--rounds", "1"]
    figures = {f.name: f.value for f in libraries.main(options)}
    assert figures["kd-lib"] > 0
    assert figures["pytorch-dml"] > 0


# What was stored


@pytest.mark.slow
def test_what_is_stored_is_compared_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "SHORT", {"operations": ["--depth=8"]})
    file = tmp_path / "ratios.json"
    assert bench.main(["--store", f"--file={file}"]) == 0
    stored = bench.read(file)
    monkeypatch.setattr(bench, "run", lambda *_: bench.read(file)["figures"])
    assert bench.main([f"--file={file}"]) == 0
    name = "operations: ours fp32, kernels"
    now = stored["figures"][name]["value"]
    stored["figures"][name]["value"] = 0.9 * now
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(stored))
    assert bench.main([f"--file={earlier}"]) == 1
    assert f"worse than stored: {name}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("now", "better", "worse"),
    [(0.95, "higher", False), (0.89, "higher", True), (2, "higher", False),
     (1.05, "lower", False), (1.11, "lower", True), (0.5, "lower", False)],
)  # fmt: skip
def test_worse_is_what_is_out_of_its_tolerance_on_the_bad_side(now, better, worse):
    figure = {"value": now, "kept": 0.1, "better": better}
    assert bench.is_worse("x", figure, {"x": {"value": 1.0}}) is worse
    assert bench.is_worse("y", figure, {"x": {"value": 1.0}}) is False


def test_photographs_become_batches_by_every_reader(capsys):
    figures = photographs.main(["--images=2", "--rounds=1"])
    names = {figure.name for figure in figures}
    assert {"ours, 500 x 375", "torchvision over ours, 1600 x 1200"} <= names
    assert "copies over ours, 500 x 375" in names
    assert all(figure.value > 0 for figure in figures)
    assert "images/s" in capsys.readouterr().out


def test_what_is_stored_comes_from_benchmarks_that_are_there():
    stored = bench.read(bench.HERE / "ratios.json")
    assert {name.partition(":")[0] for name in stored["figures"]} <= set(bench.SHORT)
    assert stored["machine"].keys() >= {"cpu", "torch", "date"}
