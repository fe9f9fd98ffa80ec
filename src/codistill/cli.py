"""The command `codistill`."""

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence

from codistill.errors import InputError, MissingExtraError

USAGE = """\
usage: codistill COMMAND ...

Trains several image classifiers that teach each other, and gives you the one you ship.

  train      train peers together: --config RECIPE, options, or both; --resume RUN goes on
  evaluate   RUN: how good every classifier of a run is
  report     RUN ...: tables of runs, seeds of one setting together; with --out a page on them
  compare    FILE: methods x networks x seeds beside the networks alone; what helped, what hurt
  reproduce  TABLE: a paper's table, at its scale or short; without one, all tables
  inspect    as train, but only show: stages, parameters, FLOPs, what is shared, memory
  list       methods | networks | data | recipes | tables
  kernels    build what makes training on a CPU faster, once for each machine
  data       check DIR: what is in a folder of images, and what has to be mended
  demo       FFL and the same network alone on real handwritten digits, a few minutes

`codistill COMMAND --help` tells more. `--traceback` before the command shows where an error arose.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    0 when done; 1 when some runs of a comparison failed; 2 when what was given cannot be used; 130
    when interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no text
    arguments = list(sys.argv[1:] if argv is None else argv)
    traceback = arguments[:1] == ["--traceback"]
    arguments = arguments[traceback:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"codistill {version('codistill')}")
        return 0
    try:
        return _command(arguments[0])(arguments[1:])
    except KeyboardInterrupt:
        print("\ncodistill: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, MissingExtraError, FloatingPointError, OSError) as error:
        if traceback:
            raise
        print(f"codistill: error: {_describe(error)}", file=sys.stderr)
        return 2


def _command(name: str) -> Callable[[list[str]], int]:
    from codistill import commands
    from codistill.errors import did_you_mean

    if name not in commands.COMMANDS:
        raise InputError(f"command {name!r} is not known: {did_you_mean(name, commands.COMMANDS)}")
    return commands.COMMANDS[name]


def _describe(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, MissingExtraError):
        where = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror or error}{where}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            text += ": free some space; the files that were there before are intact"
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
