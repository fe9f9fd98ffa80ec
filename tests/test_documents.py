"""What the documents show is run: the README's blocks and the examples."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from codistill.arguments import recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(arguments: list[str], folder: Path) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        arguments,
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, f"{arguments}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_readme_runs(tmp_path: Path) -> None:
    """Every command on a run, in the README's order, then every block of Python."""
    lines = [x for block in blocks(README, "sh") for x in block.splitlines()]
    commands = [x for x in lines if x.startswith("codistill ") and "cifar100 " not in x]
    assert len(commands) == 6
    for line in commands:
        run(shlex.split(line, comments=True), tmp_path)
    assert (tmp_path / "report" / "curves.png").exists()
    assert len(blocks(README, "python")) == 3
    for code in blocks(README, "python"):
        run([sys.executable, "-W", "error", "-c", code], tmp_path)


def test_the_method_of_the_design_page_trains(tmp_path: Path) -> None:
    (code,) = blocks((ROOT / "docs" / "design.md").read_text(), "python")
    (tmp_path / "own.py").write_text(code)
    options = "--method own:Own --method.temperature 2 --network resnet8 --epochs 1 --out run"
    arguments = [sys.executable, "-m", "codistill.cli", "train", *options.split()]
    assert "own:Own" in run(arguments, tmp_path)


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "examples").glob("*.py")))
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    run([sys.executable, "-W", "error", str(ROOT / "examples" / name)], tmp_path)


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page}: {link}"


def test_every_recipe_begins_with_what_it_is() -> None:
    for name, path in recipes().items():
        first = path.read_text().splitlines()[0]
        assert first.startswith("# "), name
        assert len(first) <= 100, name
