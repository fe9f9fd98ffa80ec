"""Builds the site into site/: the pages as they lie, a page of the API, and the pages' own links.

`make docs` runs it. The tree of the site is that of the repository, so that the same links work on
a code host, in an editor and here.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import codistill
from codistill.names import METHODS

ROOT = Path(__file__).parents[2]
TREE = ROOT / "build" / "pages"
PAGES = ("*.md", "docs/**/*.md", "docs/**/*.css", "docs/*.png", "results/*.md", "results/*/*.*")
CODE = ("examples/*", "recipes/*.yaml", "recipes/tables/*")
LINK = re.compile(r"```.*?```|\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)", re.DOTALL)


def main() -> int:
    shutil.rmtree(TREE, ignore_errors=True)
    for file in (f for pattern in (*PAGES, *CODE) for f in ROOT.glob(pattern) if f.is_file()):
        target = TREE / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    for folder in ("examples", "recipes", "recipes/tables"):
        names = sorted(f.name for f in (TREE / folder).iterdir() if f.is_file())
        listing = "\n".join(f"- [{name}]({name})" for name in names)
        (TREE / folder / "README.md").write_text(f"# {folder}\n\n{listing}\n")
    (TREE / "docs" / "api.md").write_text(api())
    for page in TREE.rglob("*.md"):
        page.write_text(LINK.sub(lambda m, page=page: followed(page, m), page.read_text()))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "mkdocs.yml"]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, env=env).returncode


def followed(page: Path, found: re.Match[str]) -> str:
    """A link that leads somewhere on the site: a folder has a page, a run's files have none."""
    text, goal, anchor = found.groups(default="")
    if not goal or goal.startswith(("http", "mailto:")):
        return found[0]
    if (page.parent / goal / "README.md").exists():
        return f"[{text}]({goal.rstrip('/')}/README.md{anchor})"
    return found[0] if (page.parent / goal).is_file() else text


def api() -> str:
    """The public names, methods last, each with its docstring."""
    of_methods = {path.partition(":")[2] for path in METHODS.values()}
    names = [n for n in codistill.__all__ if n not in of_methods]
    first = ["Method", "Peers", "fit", "evaluate", "minimize", "Updates"]
    names = [*first, *(n for n in names if n not in first), *sorted(of_methods)]
    homes = ((n, codistill._HOMES[n]) for n in names)
    return "# API\n\n" + "\n\n".join(f"::: {home}.{name}" for name, home in homes) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
