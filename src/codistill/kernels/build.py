"""Where the compiled kernels are, and how they are made.

One file is compiled by one call of the compiler, and linked by another. PyTorch's own
`cpp_extension.load` would want ninja and setuptools for that, and loads what it makes from where it
makes it.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

from codistill import files
from codistill.errors import InputError
from codistill.files import cache_folder, refusing_writes, writing_alone

_SOURCE = Path(__file__).with_name("batch_norm_relu.cpp")
_SOURCES = (_SOURCE, _SOURCE.with_name("rows.h"))
# For this very processor; a product and a sum are rounded once, everywhere alike. C++20 is what
# PyTorch's headers want since 2.9, and earlier ones take it.
_COMPILE = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++20", "-fPIC", "-fopenmp", "-w")
_MINUTES = 10  # a compiler that takes longer hangs
_loaded: set[Path] = set()


def library_file() -> Path:
    """Where the kernels of this source, PyTorch and processor are, or would be."""
    return cache_folder() / "kernels" / f"batch_norm_relu-{_key()}.so"


@cache
def _key() -> str:
    facts = [
        *(source.read_text() for source in _SOURCES),
        *_COMPILE,
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        _instructions(),
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def built() -> str | None:
    """The name of the kernels that this process can use, or None. Loads them.

    A library that is not there, is damaged, or does not load, is no error. One that has been
    loaded stays.
    """
    file = library_file()
    if file not in _loaded and _is_whole(file) and _loads(file):
        _loaded.add(file)
    return file.stem if file in _loaded else None


def build(again: bool = False) -> Path:
    """Compiles the kernels into the cache, and returns where they are.

    Args:
        again: also where they are there already; processes that use those go on with them.

    Raises:
        InputError: there is no compiler, it fails, what it made does not load, or the cache cannot
            be written.
    """
    file = library_file()
    if built() and not again:
        return file
    if not sys.platform.startswith("linux"):
        raise InputError("the kernels can only be built on Linux: training works without them")
    compiler = _compiler()
    with writing_alone(file.with_suffix("")):  # others that build wait here, and then find it
        if again or not built():
            with refusing_writes(file.parent):
                _remove_leftovers(file)
                with tempfile.TemporaryDirectory(prefix=f".{file.stem}.", dir=file.parent) as new:
                    made = Path(new, file.name)
                    _compile(compiler, made)
                    library = made.read_bytes()
                    files.write_bytes(file, library + hashlib.sha256(library).digest())
    if not built():
        raise InputError(f"{file} was compiled but does not load: training works without it")
    return file


def _compile(compiler: list[str], library: Path) -> None:
    package = Path(torch.__file__).parent
    object_file = library.with_suffix(".o")
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    headers = ["-isystem", str(package / "include")]
    _run([*compiler, *_COMPILE, abi, *headers, "-c", str(_SOURCE), "-o", str(object_file)])
    # Without -fopenmp: the threads have to be those of PyTorch, which brings its own OpenMP.
    libraries = [f"-L{package / 'lib'}", "-ltorch_cpu", "-lc10"]
    _run([*compiler, "-shared", str(object_file), "-o", str(library), *libraries])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=60 * _MINUTES
        )
    except OSError as error:
        raise InputError(
            f"{command[0]} cannot be run ({error.strerror or error}): name another compiler by the "
            "environment variable CXX; training works without the kernels"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{command[0]} did not end within {_MINUTES} minutes") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        why = (lines or [*done.stderr.splitlines(), f"status {done.returncode}"])[0]
        raise InputError(
            f"{command[0]} cannot compile the kernels ({why.strip()}): name another compiler by "
            "the environment variable CXX, such as GCC 12 or newer; training works without them"
        )


def _compiler() -> list[str]:
    """The compiler that $CXX names, with its options, or c++."""
    named = os.environ.get("CXX", "")
    try:
        command = shlex.split(named) or ["c++"]
    except ValueError as error:
        raise InputError(f"the environment variable CXX is {named!r}: {error}") from error
    if shutil.which(command[0]) is None:
        raise InputError(
            f"there is no C++ compiler {command[0]!r}: install GCC (Debian, Ubuntu: apt install "
            "g++), or name one by the environment variable CXX; training works without it"
        )
    return command


def _remove_leftovers(file: Path) -> None:
    """What builds that were killed have left."""
    for leftover in file.parent.glob(f".{file.stem}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink()


def _instructions() -> str:
    """What -march=native asks of the processor: a cache may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    kinds = ("flags", "Features", "model name", "cpu family")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))


def _is_whole(file: Path) -> bool:
    """Whether it ends with the digest of the rest: half a library would end the process."""
    try:
        content = file.read_bytes()
    except OSError:
        return False
    return content[-32:] == hashlib.sha256(content[:-32]).digest()


def _loads(file: Path) -> bool:
    """Whether the operators are there once the library is loaded, if they were not before."""
    if not hasattr(torch.ops.codistill, "batch_norm_relu"):
        try:
            torch.ops.load_library(file)
        except (OSError, RuntimeError):
            return False
    return hasattr(torch.ops.codistill, "batch_norm_relu")
