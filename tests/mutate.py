"""Breaks the library on purpose, and reports which breakages the tests do not notice.

    python tests/mutate.py [METHOD | FILE OF TESTS ...]

For every edit in `mutations.py`, a copy of the library is edited, and the method's own tests and
the contract run on it until one fails; or, for an edit of something else, its file of tests.
Exit status 1 if an edit goes unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import EDITS, Edit

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"


def main(methods: list[str]) -> int:
    chosen = [edit for edit in EDITS if not methods or edit.method in methods]
    if not chosen:
        known = ", ".join(dict.fromkeys(edit.method for edit in EDITS))
        print(f"no edits of {', '.join(methods)}: there are those of {known}")
        return 2
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        own = list(dict.fromkeys(edit.method for edit in chosen))
        for method, failed in zip(own, pool.map(failed_tests, own), strict=True):
            if failed:
                print(f"{method}: its tests fail already, without an edit")
                return 2
        found = pool.map(lambda edit: failed_tests(edit.method, edit), chosen)
        missed = []
        for number, (edit, noticed) in enumerate(zip(chosen, found, strict=True), 1):
            word = "noticed" if noticed else "MISSED "
            print(f"{number:>4}/{len(chosen)} {word} {edit.method}: {edit.what}", flush=True)
            if not noticed:
                missed.append(edit)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} edits noticed")
    for edit in missed:
        print(f"missed: {edit.method}: {edit.what} ({edit.file})")
    return bool(missed)


def apply(edit: Edit, source: Path) -> None:
    file = source / "codistill" / edit.file
    text = file.read_text()
    if text.count(edit.old) < 1:
        raise SystemExit(f"{edit.method}, {edit.what}: {edit.old!r} is not in {edit.file}")
    text = text.replace(edit.old, edit.new)
    text = text.replace("\nfrom ", "\nimport contextlib\nimport copy\nimport torch\nfrom ", 1)
    file.write_text(text)


def failed_tests(method: str, edit: Edit | None = None) -> bool:
    """Whether a test fails on an edited copy.

    Args:
        method: a method, whose tests run before the contract; or a file of tests, such as
            runs/test_damage.py.
        edit: the edit; None for the library as it is.
    """
    contract = [str(TESTS / "methods" / "test_methods.py"), "-k", f"[{method}-"]
    own = [[str(TESTS / "methods" / f"test_{method}.py")], contract]
    if method.endswith(".py"):
        own = [[str(TESTS / method)]]
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        if edit:
            apply(edit, source)
        environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
        for arguments in own:
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
