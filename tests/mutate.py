"""Breaks the library on purpose, and reports which breakages the tests do not notice.

    python tests/mutate.py [METHOD | FILE OF TESTS ...]

For every edit in `mutations/`, a copy of the library is edited, and the method's own tests and
the contract run on it until one fails; or, for an edit of something else, its file of tests.
The tests of `make test` come first, and slow ones after them. Tests marked `long` are left out:
what they notice has to be noticed without them.
`mutations/METHOD.txt` holds the edits of a method, and `mutations/runs/test_run.txt` those that
`runs/test_run.py` must notice. There, `==` names the file under src/codistill, `#` says what is
broken, `-` gives the text that is replaced, and `+` what by (nothing if there is none).
Exit status 1 if an edit goes unnoticed, 2 if tests fail already without an edit.

Tests run in forks of processes that have imported everything but the library.
"""

import importlib
import itertools
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
MUTATIONS = TESTS / "mutations"
MARKS = ["not slow and not long", "slow"]
NO_TESTS = pytest.ExitCode.NO_TESTS_COLLECTED


class Edit(NamedTuple):
    """A change of the library that a test must notice.

    Attributes:
        method: the method, or the file of tests under tests/.
        what: what the edit breaks.
        file: the edited file under src/codistill.
        old: the text that is replaced.
        new: the text in its place.
    """

    method: str
    what: str
    file: str
    old: str
    new: str


def edits_of(listed: Path) -> Iterator[Edit]:
    """The edits of one file under mutations/.

    Raises:
        ValueError: a line that belongs to no edit.
    """
    method = str(listed.relative_to(MUTATIONS).with_suffix(""))
    if listed.name.startswith("test_"):
        method += ".py"
    for part in re.split("^== ", listed.read_text(), flags=re.MULTILINE):
        file, _, edits = part.partition("\n")
        if stray := _EDIT.sub("", edits).strip():
            raise ValueError(f"{listed}: lines that belong to no edit: {stray}")
        for what, old, new in _EDIT.findall(edits):
            yield Edit(method, what, file, _text(old), _text(new))


_EDIT = re.compile(r"^# (.+)\n((?:-.*\n)+)((?:\+.*\n)*)", re.MULTILINE)


def _text(lines: str) -> str:
    return "\n".join(line[2:] for line in lines.splitlines())


EDITS = [edit for listed in sorted(MUTATIONS.rglob("*.txt")) for edit in edits_of(listed)]


def main(methods: list[str]) -> int:
    chosen = [edit for edit in EDITS if not methods or edit.method in methods]
    if not chosen:
        known = ", ".join(dict.fromkeys(edit.method for edit in EDITS))
        print(f"no edits of {', '.join(methods)}: there are those of {known}")
        return 2
    for name in ("beartype", "sklearn.datasets", "torch", "torch._dynamo"):
        importlib.import_module(name)
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count(), fork) as pool:
        own = list(dict.fromkeys(edit.method for edit in chosen))
        broken = {m: log for m, log in zip(own, pool.map(failed_tests, own), strict=True) if log}
        for method, log in broken.items():
            print(f"{log}\n{method}: its tests fail already, without an edit", flush=True)
        chosen = [edit for edit in chosen if edit.method not in broken]
        found = pool.map(failed_after, chosen)
        missed = []
        for number, (edit, noticed) in enumerate(zip(chosen, found, strict=True), 1):
            word = "noticed" if noticed else "MISSED "
            print(f"{number:>4}/{len(chosen)} {word} {edit.method}: {edit.what}", flush=True)
            if not noticed:
                missed.append(edit)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} edits noticed")
    for edit in missed:
        print(f"missed: {edit.method}: {edit.what} ({edit.file})")
    for method in broken:
        print(f"not tried: {method}, whose tests fail already")
    return 2 if broken else bool(missed)


def apply(edit: Edit, source: Path) -> None:
    file = source / "codistill" / edit.file
    text = file.read_text()
    if text.count(edit.old) < 1:
        raise RuntimeError(f"{edit.method}, {edit.what}: {edit.old!r} is not in {edit.file}")
    text = text.replace(edit.old, edit.new)
    text = text.replace("\nfrom ", "\nimport contextlib\nimport copy\nimport torch\nfrom ", 1)
    file.write_text(text)


def failed_tests(method: str, edit: Edit | None = None) -> str:
    """What pytest prints of the first test that fails on an edited copy; empty if none fails.

    Args:
        method: a method, whose tests run before the contract; or a file of tests, such as
            runs/test_damage.py.
        edit: the edit; None for the library as it is.
    """
    contract = [str(TESTS / "methods" / "test_methods.py"), "-k", f"[{method}-"]
    own = [[str(TESTS / "methods" / f"test_{method}.py")], contract]
    if method.endswith(".py"):
        own = [[str(TESTS / method)]]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        (Path(folder) / "recipes").symlink_to(ROOT / "recipes")  # where a checkout has them
        if edit:
            apply(edit, source)
        for marks, arguments in itertools.product(MARKS, own):
            log = Path(folder) / "log"
            options = ["-q", "-x", "-p", "no:cacheprovider", "-m", marks]
            status = run_tests([*options, *arguments], source, log)
            if status == 1:
                return log.read_text()
            if status and not (status == NO_TESTS and marks == "slow"):
                raise RuntimeError(f"{method}: {log.read_text()}")
    return ""


def failed_after(edit: Edit) -> bool:
    return bool(failed_tests(edit.method, edit))


def run_tests(arguments: list[str], source: Path, log: Path) -> int:
    """Runs pytest in a fork of this process that finds the library in `source`."""
    if fork := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1), os.dup2(file, 2)
        os.chdir(ROOT)
        os.environ |= {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(source))
        status = pytest.main(arguments)
    except BaseException:
        traceback.print_exc()
        status = 3
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
