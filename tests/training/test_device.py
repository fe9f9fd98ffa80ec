"""What a training sets of PyTorch's for its device, and puts back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from pretended_gpu import PretendedGpu
from toys import make, sgd, toy_batches, toy_split

from codistill import InputError
from codistill.data.batches.in_memory import EvalBatches
from codistill.data.normalisation import Normalisation
from codistill.training import folding
from codistill.training.device import (
    bf16_notes,
    deterministic,
    exact_convolutions,
    random_numbers_kept,
    require_device,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FRESH: Any = torch.utils.deterministic
VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


def settings() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        FRESH.fill_uninitialized_memory,
        os.environ.get(VARIABLE),
    )


@contextmanager
def as_before() -> Iterator[None]:
    on, warns, benchmark, _, _ = settings()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(bool(on), warn_only=bool(warns))
        torch.backends.cudnn.benchmark = bool(benchmark)


def fills(step: Any) -> int:
    """How often a step fills a tensor."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    return sum(event.count for event in profile.key_averages() if event.key == "aten::fill_")


def test_a_deterministic_step_has_no_kernel_more() -> None:
    method = make("ffl").train()
    optimizers, (batch,) = method.optimizers(sgd), toy_batches(n=1, B=4)

    def step() -> None:
        method.training_step(batch, optimizers, 1)

    step()
    plain = fills(step)
    with PretendedGpu(), as_before():
        torch.use_deterministic_algorithms(True, warn_only=True)  # as PyTorch has it
        assert fills(step) > plain + 50
    with PretendedGpu(), deterministic(GPU):
        assert fills(step) == plain


@pytest.mark.parametrize("workspace", [None, ":16:8"])
@pytest.mark.parametrize("on", [(False, False), (True, True), (True, False)])
def test_a_gpus_settings_are_put_back(
    on: tuple[bool, bool], workspace: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if workspace:
        monkeypatch.setenv(VARIABLE, workspace)
    with as_before():
        torch.use_deterministic_algorithms(on[0], warn_only=on[1])
        torch.backends.cudnn.benchmark = True
        before = settings()
        with PretendedGpu(), deterministic(GPU):
            assert settings() == (True, True, False, False, workspace or ":4096:8")
        assert settings() == before
        with pytest.raises(KeyError), PretendedGpu(), deterministic(GPU):
            raise KeyError
        assert settings() == before


def test_on_a_cpu_nothing_is_set() -> None:
    before = settings()
    with deterministic(CPU):
        assert settings() == before


def test_the_gpu_of_a_training_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []

    @contextmanager
    def note(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", note)
    with deterministic(torch.device("cuda:1")):
        assert current == [torch.device("cuda:1")]
    assert current == []


@pytest.mark.parametrize("own", ["none", "ieee", "tf32"])
def test_folding_takes_pytorchs_new_switches_of_tf32_too(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cudnn: Any = torch.backends.cudnn
    if not hasattr(cudnn, "conv"):
        pytest.skip("this PyTorch has no such switches")
    monkeypatch.setattr(folding, "WORTH", 1)
    method = make("ffl").eval()
    (batch,) = EvalBatches(split := toy_split(8), 8, Normalisation.of(split))
    before = cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
    try:
        if own != "none":
            cudnn.conv.fp32_precision = own
            cudnn.rnn.fp32_precision = "ieee" if own == "tf32" else "tf32"
        with torch.inference_mode():
            assert folding.folded(method, batch.views, 8) is not method
        assert cudnn.conv.fp32_precision == (before[0] if own == "none" else own)
    finally:
        cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = before


def test_exact_convolutions_are_without_tf32() -> None:
    cudnn: Any = torch.backends.cudnn
    before = cudnn.allow_tf32
    with exact_convolutions():
        if hasattr(cudnn, "conv"):
            assert cudnn.conv.fp32_precision == "ieee"
        else:
            assert not cudnn.allow_tf32
    assert cudnn.allow_tf32 == before


def test_a_gpu_is_looked_for_without_being_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("auto", "cpu", "cuda", "cuda:1"):  # a tensor there would raise
        require_device(name)
    with pytest.raises(InputError, match=r"'cuda:2' cannot be used here \(there are 2 GPUs\)"):
        require_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=r"'cuda' cannot be used here \(there are 0 GPUs\): try"):
        require_device("cuda")
    with pytest.raises(InputError, match="'gpu' cannot be used here"):
        require_device("gpu")


def test_a_gpu_that_emulates_bf16_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bf16_notes(CPU, "bf16") == []  # no GPU is asked
    with PretendedGpu():
        assert bf16_notes(GPU, "bf16") == []
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        (note,) = bf16_notes(GPU, "bf16")
        assert note.startswith("pretended GPU emulates bf16 slowly: --precision fp16")
        assert bf16_notes(GPU, "fp32") == []
        monkeypatch.undo()


def test_random_numbers_of_the_gpu_are_kept_with_those_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = {GPU: torch.zeros(1, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda s, device: states.update({device: s}))
    expected = torch.get_rng_state(), states[GPU]
    with random_numbers_kept(GPU):
        torch.rand(1)
        states[GPU] = states[GPU] + 1
    assert torch.equal(torch.get_rng_state(), expected[0])
    assert torch.equal(states[GPU], expected[1])
    with random_numbers_kept(CPU):
        states[GPU] = states[GPU] + 1
    assert not torch.equal(states[GPU], expected[1])
