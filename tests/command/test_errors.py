"""Errors of PyTorch's that memory or a GPU is to blame for are one line; others are not."""

import pytest
import torch

from codistill.command.main import exit_status


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "2.00 GiB.)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 4 bytes"), "4"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "--precision bf16"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED"), "--precision bf16"),
        (MemoryError(), "--recompute true (not with --cuda_graphs)"),
        (RuntimeError("CUDA error: device-side assert triggered\nmore"), "CUDA_LAUNCH_BLOCKING=1"),
    ],
)
def test_what_memory_or_a_gpu_is_to_blame_for_is_one_line(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert exit_status(fail) == 2
    (line,) = capsys.readouterr().err.splitlines()
    start = "the GPU cannot go on (" if "triggered" in str(error) else "memory is not enough ("
    assert line.startswith(f"codistill: error: {start}")
    assert said in line
    with pytest.raises(type(error)):
        exit_status(fail, traceback=True)


def test_a_compiler_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    class InductorError(RuntimeError):
        pass

    InductorError.__module__ = "torch._inductor.exc"  # importing it takes seconds

    def fail() -> int:
        raise InductorError("RuntimeError: Failed to find C compiler.\nSet TORCHDYNAMO_VERBOSE=1")

    assert exit_status(fail) == 2
    assert capsys.readouterr().err == (
        "codistill: error: the stages cannot be compiled (RuntimeError: Failed to find C "
        "compiler.): that needs a C compiler (gcc), and on a GPU Triton; train without --compile, "
        "or see more by codistill --traceback ...\n"
    )


def test_other_errors_keep_their_traceback() -> None:
    def fail() -> int:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        exit_status(fail)


def test_memory_that_a_machine_does_not_have_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_status(lambda: len(torch.empty(10**15))) == 2
    assert "error: memory is not enough (" in capsys.readouterr().err
