"""Breaks the methods on purpose, and reports which breakages the tests do not notice.

    python tests/mutate.py [METHOD ...]

For every edit in `mutations.py`, a copy of the library is edited, and the method's own tests and
the contract run on it until one fails. Exit status 1 if an edit goes unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mutations import EDITS, Edit

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "methods"


def main(methods: list[str]) -> int:
    chosen = [edit for edit in EDITS if not methods or edit.method in methods]
    if not chosen:
        known = ", ".join(dict.fromkeys(edit.method for edit in EDITS))
        print(f"no edits of {', '.join(methods)}: there are those of {known}")
        return 2
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        for method in dict.fromkeys(edit.method for edit in chosen):
            copy(source)
            if failed(method, source):
                print(f"{method}: its tests fail already, without an edit")
                return 2
        for number, edit in enumerate(chosen, 1):
            copy(source)
            apply(edit, source)
            noticed = failed(edit.method, source)
            print(
                f"{number:>4}/{len(chosen)} {'noticed' if noticed else 'MISSED '} "
                f"{edit.method}: {edit.what}",
                flush=True,
            )
            if not noticed:
                missed.append(edit)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} edits noticed")
    for edit in missed:
        print(f"missed: {edit.method}: {edit.what} ({edit.file})")
    return bool(missed)


def copy(source: Path) -> None:
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))


def apply(edit: Edit, source: Path) -> None:
    file = source / "codistill" / edit.file
    text = file.read_text()
    if text.count(edit.old) < 1:
        raise SystemExit(f"{edit.method}, {edit.what}: {edit.old!r} is not in {edit.file}")
    text = text.replace(edit.old, edit.new)
    text = text.replace("\nfrom ", "\nimport contextlib\nimport copy\nimport torch\nfrom ", 1)
    file.write_text(text)


def failed(method: str, source: Path) -> bool:
    """Whether a test fails: first those of the method, then the contract."""
    environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    own, contract = str(TESTS / f"test_{method}.py"), str(TESTS / "test_methods.py")
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    for arguments in ([own], [contract, "-k", f"[{method}-"]):
        done = subprocess.run(
            [*pytest, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 1:
            return True
        if done.returncode > 1:  # no test could be run at all
            raise SystemExit(f"{method}: {done.stdout}\n{done.stderr}")
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
