"""What the library computes on a GPU. Without CUDA the GPU is pretended, and mixed devices raise.

`python -m pytest tests/test_on_gpu.py` is the first thing to run on a machine that has one. A real
GPU adds in another order than the CPU, so results are compared with tolerances there; TF32 is off
and kernels are deterministic. It also draws other random numbers: networks with dropout are
compared with the CPU by masks that the CPU draws.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from photo_fakes import write_classes
from pretended_gpu import PretendedGpu
from runs_of import tiny_config, train
from torch import Tensor
from toys import C, can_share, needed, sgd, taught, tiny, toy_split

from codistill import Batch, Method, Peers, TrainingState, evaluate, fit, load_student
from codistill.analysis import Missing, analyse
from codistill.analysis.calibration import calibration
from codistill.analysis.classes import class_changes
from codistill.analysis.cost.summary import summarise_method
from codistill.analysis.grad_cam import grad_cam
from codistill.analysis.predictions import predict
from codistill.analysis.similarity import map_similarities
from codistill.data.batches.in_memory import Augmentation, EvalBatches, TrainBatches
from codistill.data.batches.mixing import MixedBatches, Mixing
from codistill.data.normalisation import Normalisation
from codistill.methods import method_class
from codistill.names import METHODS
from codistill.networks.student import save_student
from codistill.runs.run import Run
from codistill.settings.data_config import DataConfig
from codistill.tensor_files import read_weights
from codistill.training import folding
from codistill.training.device import deterministic, exact_convolutions

REAL = torch.cuda.is_available()
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product alone
# A real GPU's warnings are shown, and fail no test: this file is the first to meet them.
pytestmark = [pytest.mark.filterwarnings("default")] if REAL else []
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "shake": [{}, {"kd_weight": 0.5, "normalise": True}],
    "dml": [{}, {"standardise": True}],
    "cl_ilr": [{}, {"hold_targets": False}],
    "kdcl": [{"target": t} for t in ("minlogit", "naive", "linear", "general")],
    "okddip": [{}, {"mix": "probabilities"}],
    "mcl": [{}, {"logits": True}],
    "ffl": [{}, {"ensemble_teaches": False}],
    "afd": [{}, {"alignment": "l1"}, {"alignment": "l2"}, {"alignment": "none"}]
    + [{"decoupled_decay": False, "kd": False}],
    "okdmde": [{}, {"fusion": False, "diversity_weight": 1.0, "diversity": "normalised"}],
    "mfef": [{}, {"multi_scale": False}, {"channel_attention": False, "spatial_attention": False}],
}
"""Options of the methods that take another way through the code."""


@dataclass(frozen=True)
class Case:
    """A method and the manner in which it is trained.

    Attributes:
        name: name of the method.
        shared: stages that the peers share. Without any, the peers are of three architectures.
        options: options of the method.
        precision: "fp32" or "bf16".
        mixed: whether labels are distributions: Mixup, CutMix, smoothing and class weights.
        recompute: whether stages are computed again in the backward pass.
        dropout: share of values that each stage sets to zero.
        left: "within" an epoch of two steps, or "between" two epochs of one: there the training is
            left, to be resumed.
    """

    name: str
    shared: int
    options: dict[str, Any] = field(default_factory=dict)
    precision: Any = "fp32"
    mixed: bool = False
    recompute: bool = False
    dropout: float = 0.1
    left: str = "within"

    def __str__(self) -> str:
        words = [self.name, "trunk" if self.shared else "apart", self.precision]
        words += [f"{option}={value}" for option, value in self.options.items()]
        words += [word for word in ("mixed", "recompute") if getattr(self, word)]
        return "-".join([*words, self.left])

    def method(self, seed: int = 0) -> Method:
        torch.manual_seed(seed)
        # From 8 pixels maps of 2, 4 and 3: one ratio of sizes is no whole number.
        shapes = [(4, (1, 2, 2)), (8, (1, 1, 2)), (6, (1, 3, 1))]
        if self.shared:
            shapes = [(4, (1, 2, 2))] * 3
        networks = [tiny(width=w, strides=strides, dropout=self.dropout) for w, strides in shapes]
        peers = Peers(networks, self.shared, self.recompute)
        return method_class(self.name)(peers, **needed(self.name) | self.options)


ALL_KINDS = [
    (name, shared, options)
    for name in METHODS
    for options in OPTIONS.get(name, [{}])
    for shared in (0, 2)
    if can_share(name, shared)
]
KINDS = [kind for i, kind in enumerate(ALL_KINDS) if not kind[2] or i % 5 == 0]
"""Every method, with and without a trunk, and some of its options."""
MANNERS = [
    {"precision": precision, "mixed": mixed, "recompute": recompute, "left": left}
    for left in ("within", "between")
    for precision, mixed, recompute in [
        ("fp32", False, False),
        ("bf16", True, False),
        ("fp32", True, True),
        ("bf16", False, True),
    ]
]
"""Any two settings meet in one of them."""
CASES = [Case(*kind, **MANNERS[i % len(MANNERS)]) for i, kind in enumerate(KINDS)]
ALL_CASES = [Case(*kind, **manner) for kind in ALL_KINDS for manner in MANNERS]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The GPU. Evaluations fold batch normalisation, however few images there are."""
    monkeypatch.setattr(folding, "WORTH", 1)
    taught()  # once for all tests, and on the CPU
    gpu = torch.device("cuda", 0)
    pretended = contextlib.nullcontext() if REAL else PretendedGpu()
    with pretended, deterministic(gpu), exact_convolutions():
        yield gpu


CPU = torch.device("cpu")


@contextlib.contextmanager
def masks_of_the_cpu() -> Iterator[None]:
    """Dropout draws its masks on the CPU, so that they are the same on every device."""

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training:
            return x
        return x * (torch.rand(x.shape) >= p).to(x.device) / (1 - p)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "dropout", dropout)
        yield


def batches_on(device: torch.device, case: Case, views: int) -> tuple[Any, EvalBatches]:
    """The batches of an epoch, and images to evaluate on."""
    split = toy_split(n=11 if case.left == "within" else 6).to(device)
    normalisation = Normalisation.of(split)
    train: Any = TrainBatches(split, 6, normalisation, Augmentation(pad=1), views)
    if case.mixed:
        weights = torch.arange(1.0, C + 1)
        train = MixedBatches(train, C, Mixing(0.1, 0.5, 0.5, weights))
    return train, EvalBatches(split, 6, normalisation)


class Leaving:
    """Batches of a training whose state is saved before its second step, as a checkpoint is."""

    def __init__(self, batches: Any, training: TrainingState):
        self.batches, self.training = batches, training
        self.begun = False
        self.saved = io.BytesIO()

    def start_at(self, epoch: int, start: int) -> None:
        self.batches.start_at(epoch, start)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            if self.begun and not self.saved.tell():
                torch.save(self.training.state_dict(), self.saved)
            self.begun = True
            yield batch

    def read(self) -> Any:
        self.saved.seek(0)
        return torch.load(self.saved, map_location="cpu", weights_only=True)


def trained(case: Case, device: torch.device, resumed: Any = None) -> tuple[TrainingState, Leaving]:
    """Two steps, the last of them in epoch 1; or the second one, from a state that was saved."""
    method = case.method(seed=1 if resumed else 0).to(device)
    training = TrainingState(method, sgd)
    train, test = batches_on(device, case, method.views)
    leaving = Leaving(train, training)
    training.epoch = 1 if case.left == "within" else 0
    torch.manual_seed(5)
    if resumed:
        torch.manual_seed(6)  # random numbers are those of the state
        training.load_state_dict(resumed)
    fit(method, leaving, epochs=2, held_out=test, precision=case.precision, state=training)
    return training, leaving


def untimed(training: TrainingState) -> list[dict[str, float]]:
    times = ("seconds", "images_per_second")
    return [{k: v for k, v in record.items() if k not in times} for record in training.history]


# How far a loss on a real GPU may be from the CPU's, absolutely and relatively: after one step with
# the first weights, and after an update. Weights disturbed by a device's rounding (each by
# 3e-6 in fp32, by 4e-3 in bf16) move no loss by more than half of it.
CLOSE = {"fp32": (1e-3, 0.02), "bf16": (0.1, 0.2)}
# How far weights may be after the same step taken twice. Average pooling to a size that is no
# divisor has no deterministic kernel, and adds up in the precision of the maps.
AGAIN = {"fp32": {}, "bf16": {"rtol": 1e-2, "atol": 1e-3}}
EXACTLY = {"rtol": 0.0, "atol": 0.0}


def assert_as_on_the_cpu(training: TrainingState, case: Case, device: torch.device) -> None:
    """The losses are those of the CPU: to the bit if the GPU is pretended."""
    if not REAL:
        if any(g.get("fused") for o in training.optimizers.values() for g in o.param_groups):
            return  # on a CPU these kernels want weights and gradients in one memory layout
        expected, _ = trained(case, CPU)
        assert untimed(training) == untimed(expected)
        return
    with masks_of_the_cpu():
        found, expected = (trained(case, on)[0].history for on in (device, CPU))
    for i, (record, there) in enumerate(zip(found, expected, strict=True)):
        close = CLOSE[case.precision][not (case.left == "between" and i == 0)]
        losses = [{n: x for n, x in r.items() if n.startswith("loss/")} for r in (record, there)]
        assert losses[0] == pytest.approx(losses[1], rel=close, abs=close)


def check(case: Case, device: torch.device) -> None:
    training, leaving = trained(case, device)
    method = training.method
    assert {tensor.device for tensor in method.state_dict().values()} == {device}
    assert_as_on_the_cpu(training, case, device)
    again, _ = trained(case, device, leaving.read())
    close: Any = AGAIN[case.precision] if REAL else EXACTLY
    torch.testing.assert_close(again.method.state_dict(), method.state_dict(), **close)
    _, test = batches_on(device, case, 1)
    found = evaluate(method, test, case.precision)
    assert found.keys() >= {f"top1/{name}" for name in method.students()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_method_trains_evaluates_and_resumes(case: Case, device: torch.device) -> None:
    check(case, device)


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL_CASES, ids=str)
def test_a_method_trains_in_every_manner(case: Case, device: torch.device) -> None:
    check(case, device)


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_summarised_analysed_and_exported(
    name: str, device: torch.device, tmp_path: Path
) -> None:
    case = Case(name, shared=0 if can_share(name, 0) else 2)
    method = case.method().to(device)
    _, test = batches_on(device, case, 1)
    assert summarise_method(method, (8, 8), batch_size=4).flops > 0
    predictions = predict(method, test)
    assert {tensor.device for tensor in vars(predictions.of["peer0"]).values()} == {CPU}
    assert calibration(predictions, "peer0").ece >= 0
    assert class_changes(predictions, "peer0", "ensemble", tuple("abcd"))
    assert map_similarities(method, test).pairs
    assert len(grad_cam(method, test, [3])) == 1
    for kept in method.students().values():
        save_student(
            tmp_path / "student", kept.network(), {"network": "toys:tiny", "classes": "ab"}
        )
        weights = read_weights(tmp_path / "student")[0]
        assert {tensor.device for tensor in weights.values()} == {CPU}


def test_masks_of_the_cpu_drop_as_pytorch_does(device: torch.device) -> None:
    x = torch.ones(100_000, device=device)
    with masks_of_the_cpu():
        torch.manual_seed(0)
        dropped = F.dropout(x, 0.2)
        torch.manual_seed(0)
        assert torch.equal(F.dropout(x.cpu(), 0.2), dropped.cpu())
        assert F.dropout(x, 0.2, training=False) is x
    assert dropped.unique().tolist() == F.dropout(x, 0.2).unique().tolist() == [0, 1.25]
    assert float((dropped == 0).float().mean()) == pytest.approx(0.2, abs=0.01)


def test_images_in_memory_are_augmented_as_on_the_cpu(device: torch.device) -> None:
    """Pixels of a real GPU may be rounded the other way, which a second operation may enlarge."""
    split, plain = toy_split(n=128, height=12, width=16), Normalisation((0.0,) * 3, (1.0,) * 3)
    augmentation = Augmentation(pad=2, rand_augment=9)

    def views(on: torch.device) -> Tensor:
        batches = TrainBatches(split.to(on), 64, plain, augmentation, views=2)
        found = [view for batch in batches for view in batch.views]
        assert {view.device for view in found} == {on}
        return torch.cat(found).cpu()

    differences = (views(device) - views(CPU)).abs()
    assert float((differences > 1).float().mean()) < (0.01 if REAL else 1e-9)


# Whole runs

RUNS: dict[str, dict[str, Any]] = {
    "ffl": {},
    "kdcl": {
        "method": {"name": "kdcl", "target": "general"},
        "shared": 0,
        "precision": "bf16",
        "eval_precision": "bf16",
        "mixup": 0.4,
        "recompute": True,
    },
}


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")  # where the GPU is pretended
def test_a_run_on_photographs_trains(device: torch.device, tmp_path: Path) -> None:
    root = write_classes(tmp_path / "photos", {"cat": 12, "dog": 12})
    data = DataConfig(name="folder", root=str(root), image_size=16, workers=0)
    settings = {"device": "cuda", "epochs": 1, "batch_size": 8, "data": data}
    for record in Run.create(tiny_config(tmp_path / "run", **settings)).train():
        assert record["test/nll/fused"] > 0


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_a_run_trains_and_is_analysed(name: str, device: torch.device, tmp_path: Path) -> None:
    data = DataConfig(name="digits", val_fraction=0.1)
    settings = {"device": "cuda", "epochs": 1, "batch_size": 512, "data": data} | RUNS[name]
    run = train(tmp_path / "run", **settings)
    found = analyse(run, pictures=2, similarity_images=16)
    assert not [part for part in vars(found).values() if isinstance(part, Missing)]
    logits = load_student(run / "student.safetensors")(torch.zeros(1, 3, 8, 8))
    assert logits.device == CPU
    versions = Run(run).manifest.processes[0].gpu
    assert versions.keys() == {"cuda", "cudnn", "driver"}
    there = Run(run, device="cpu")
    there.load_weights()
    assert {tensor.device for tensor in there.method.state_dict().values()} == {CPU}
