"""The command `codistill`: finds the file of a command, and turns errors into one line."""

import errno
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from codistill.command.options import Parser, refuse_unknown
from codistill.command.stopping import EndedAtOnce
from codistill.errors import InputError, MissingExtraError, reason
from codistill.messages import printable

_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "nable to find an engine",
    "valid cuDNN algorithm",
)
"""Words of PyTorch's: of CUDA, of the CPU, of cuBLAS and cuDNN."""

COMMANDS = {
    "train": "train peers together, from a recipe, from options, or from both",
    "predict": "classify photographs with a run, a student or an export",
    "serve": "show a page on this machine that classifies a photograph with every classifier",
    "export": "write a network of a run for ONNX, torch.export, timm, torchvision, the Hub",
    "evaluate": "measure every classifier of a run",
    "report": "show a table of finished runs; with --out also write a page on them",
    "compare": "train methods x networks x seeds, and the networks alone; report what helped",
    "reproduce": "train the runs of a paper's table, in full or in a short version",
    "inspect": "show what train would build: stages, parameters, FLOPs, memory",
    "list": "list methods, networks, data sets, recipes or tables",
    "data": "check the images of a data set",
    "demo": "train FFL and the same network alone on handwritten digits (a few minutes)",
}
"""What each command does. Its file is codistill/command/NAME.py, with a function `main(argv)`."""


_ALONE = ("compare", "reproduce", "demo")
"""Commands that train runs, each in one process of its own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    0 when done; 1 when some runs of a comparison failed, or some images are broken; 2 when what was
    given cannot be used; 75 when the time was over; 128 + N when signal N stopped it: 130 for
    Ctrl-C, 143 for SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    traceback = arguments[:1] == ["--traceback"]
    return exit_status(lambda: _run(arguments), traceback)


def exit_status(run: Callable[[], int], traceback: bool = False) -> int:
    """What `run` returns; an error that the user can repair becomes one line on stderr.

    Args:
        run: what is done.
        traceback: let such an error through instead.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no text
    try:
        return run()
    except KeyboardInterrupt as error:
        print("\ncodistill: interrupted", file=sys.stderr)
        return error.status if isinstance(error, EndedAtOnce) else 130
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = _describe(error)
        if traceback or line is None:
            raise
        print(f"codistill: error: {line}", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    parser = Parser(
        prog="codistill",
        usage="codistill COMMAND ...",
        description="Trains image classifiers that teach each other, and keeps one of them to use.",
        epilog="`codistill COMMAND --help` shows the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, about in COMMANDS.items():
        commands.add_parser(name, help=about, add_help=False)  # its file parses what follows
    refuse_unknown("command", arguments, COMMANDS)
    at = next((i for i, a in enumerate(arguments) if not a.startswith("-")), len(arguments))
    options = parser.parse_args(arguments[: at + 1])
    if options.version:
        from importlib.metadata import version

        print(f"codistill {version('codistill')}")
        return 0
    if options.command is None:
        parser.print_help()
        return 0
    if options.command in _ALONE and os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise InputError(f"{options.command} starts its processes itself: leave out torchrun")
    command = import_module(f"codistill.command.{options.command}")
    return command.main(arguments[at + 1 :])


def _describe(error: Exception) -> str | None:
    """The line for an error that the user can repair; None for others, which have a traceback."""
    first = reason(error)
    if isinstance(error, MemoryError) or any(words in first for words in _NO_MEMORY):
        return (
            f"memory is not enough ({first}): train with a smaller --batch_size, --precision bf16 "
            "or --recompute true (not with --cuda_graphs), evaluate and report with --device cpu"
        )
    if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return (
            f"the stages cannot be compiled ({first}): that needs a C compiler (gcc), and on a GPU "
            "Triton; train without --compile, or see more by codistill --traceback ..."
        )
    if type(error).__name__ == "AcceleratorError" or first.startswith("CUDA error"):
        return (
            f"the GPU cannot go on ({first}): CUDA_LAUNCH_BLOCKING=1 codistill --traceback ... "
            "shows where"
        )
    if not isinstance(error, InputError | MissingExtraError | FloatingPointError | OSError):
        return None
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, MissingExtraError):
        where = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror or error}{where}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            text += ": free some space; the files that were there before are intact"
    return printable(re.sub(r"\s*\n\s*", " ", text.strip()))


if __name__ == "__main__":
    sys.exit(main())
