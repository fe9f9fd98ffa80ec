"""Imports run down the ten packages; docs/design.md says what each is for."""

import ast
from pathlib import Path

import codistill

SOURCE = Path(codistill.__file__).parent
ABOVE = ["command", "reporting", "comparing", "analysis", "runs", "settings", "training", "methods"]
FLOORS = {name: 9 - i for i, name in enumerate(ABOVE)} | {"networks": 1, "data": 1}
APART = {("networks", "data"), ("data", "networks"), ("analysis", "comparing")}
APART |= {("comparing", "analysis")}


def imported(file: Path) -> set[str]:
    """The packages and files of codistill that a file imports, within functions too."""
    modules = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    parts = [module.split(".") for module in modules]
    return {part[1] for part in parts if part[0] == "codistill" and len(part) > 1}


def test_imports_run_down() -> None:
    for file in SOURCE.rglob("*.py"):
        room = file.relative_to(SOURCE).parts[0]
        if room in ("__init__.py", "__main__.py"):
            continue
        for other in imported(file) & FLOORS.keys() - {room}:
            assert room in FLOORS, f"{file} stands on the ground and imports {other}"
            down = FLOORS[other] < FLOORS[room] and (room, other) not in APART
            assert down, f"{file} imports {other}, which is not below {room}"


def test_there_are_ten_packages_and_nothing_else() -> None:
    ground = {"clock", "errors", "files", "importing", "messages", "names", "seals", "tensor_files"}
    ground |= {"__init__", "__main__", "checks", "distributed", "signals"}
    there = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert there - {"__pycache__", "recipes"} == FLOORS.keys() | ground


def test_a_paper_imports_no_paper() -> None:
    papers = SOURCE / "methods" / "papers"
    for file in papers.glob("*.py"):
        assert "codistill.methods.papers" not in file.read_text(), file
