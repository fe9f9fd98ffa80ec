"""What the documents show is run: the README's blocks and the examples."""

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from codistill import build_network, save_student
from codistill.methods import METHODS, method_class
from codistill.names import NETWORKS
from codistill.settings.arguments import parse_config
from codistill.settings.build_method import build_method
from codistill.settings.recipes import recipes

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
    """Every command on a run, in the README's order; then its Python, and that of analysis.md."""
    lines = [x for block in blocks(README, "sh") for x in block.splitlines()]
    commands = [x for x in lines if x.startswith("codistill ") and "cifar100 " not in x]
    assert len(commands) == 6
    for line in commands:
        run(shlex.split(line, comments=True), tmp_path)
    assert {"curves.png", "report.html"} <= {p.name for p in (tmp_path / "report").iterdir()}
    assert len(blocks(README, "python")) == 4
    analysis = (ROOT / "docs" / "analysis.md").read_text()  # of the run that was made above
    for code in blocks(README, "python") + blocks(analysis, "python"):
        run([sys.executable, "-W", "error", "-c", code], tmp_path)


def test_the_method_of_the_design_page_trains(tmp_path: Path) -> None:
    (code,) = blocks((ROOT / "docs" / "design.md").read_text(), "python")
    (tmp_path / "own.py").write_text(code)
    options = "--method own:Own --method.temperature 2 --network resnet8 --epochs 1 --out run"
    arguments = [sys.executable, "-m", "codistill", "train", *options.split()]
    assert "own:Own" in run(arguments, tmp_path)


def test_the_module_of_the_page_on_networks_becomes_a_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _ = blocks((ROOT / "docs" / "networks.md").read_text(), "python")
    exec(code, {})
    assert capsys.readouterr().out == "(16, 32) (2, 4)\n"


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "examples").glob("*.py")))
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    run([sys.executable, "-W", "error", str(ROOT / "examples" / name)], tmp_path)


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page}: {link}"


def test_the_page_on_reports_has_every_section_of_a_report(digits_report: Path) -> None:
    page = (ROOT / "docs" / "report.md").read_text()
    sections = re.findall(r"^\| ([^|`]+) \| .* \| .*\|$", page, re.MULTILINE)
    comparison = "What helped, what hurt"  # which a report of runs has not
    titles = re.findall("^## (.+)$", (digits_report / "report.md").read_text(), re.MULTILINE)
    assert [name for name in sections if name not in ("section", comparison)] == titles
    assert comparison in sections


def test_every_recipe_begins_with_what_it_is() -> None:
    for name, path in recipes().items():
        first = path.read_text().splitlines()[0]
        assert first.startswith("# "), name
        assert len(first) <= 100, name


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_and_two_recipes(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    for part in ("**Evaluated:**", "**Kept:**"):
        assert part in page, part
    options = {*inspect.signature(method_class(name)).parameters} - {"peers", "standardise"}
    for option in options:
        assert f"`{option}`" in page, option
    assert {f"{name}_resnet32_cifar100", f"{name}_resnet8_cifar100_short"} <= recipes().keys()


def test_the_option_that_many_methods_share_is_said_once() -> None:
    page = (ROOT / "docs" / "methods" / "README.md").read_text()
    assert "`--method.standardise true`" in page
    having = {n for n in METHODS if "standardise" in inspect.signature(method_class(n)).parameters}
    assert METHODS.keys() - having == {"independent"}


def test_the_page_on_networks_has_them_all_in_order() -> None:
    page = (ROOT / "docs" / "networks.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_page_on_networks_says_what_they_are(name: str) -> None:
    page = (ROOT / "docs" / "networks.md").read_text()
    with torch.device("meta"):
        ten, hundred = build_network(name, 10), build_network(name, 100)
        with FlopCounterMode(display=False) as counter:
            hundred(torch.empty(2, 3, 32, 32))
    counts = [f"{sum(p.numel() for p in network.parameters()):,}" for network in (ten, hundred)]
    maps = zip(hundred.channels, hundred.reductions, strict=True)
    stages = ", ".join(f"{d}@{32 // reduction}" for d, reduction in maps)
    facts = [f"`{name}`", *counts, f"{counter.get_total_flops() / 2e6:,.1f}", stages]
    assert f"| {' | '.join(facts)} |" in page


@pytest.mark.parametrize("recipe", recipes())
def test_a_recipe_builds_its_method(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse_config(["--config", recipe], "codistill train")
    network = config.network.partition(",")[0].rpartition("/")[2]
    assert recipe.startswith(f"{config.method['name']}_{network}_{config.data.name}")
    if "teacher" in config.method:
        about = {"network": "resnet8", "classes": [str(c) for c in range(100)]}
        path = Path(config.method["teacher"])
        path.parent.mkdir(parents=True)
        save_student(path, build_network("resnet8", 100), about)
    method = build_method(config, 100, (64, 64))
    assert len(method.peers) == config.peers
    assert not method.scales.keys() & config.method.keys()  # they follow the epochs by themselves


@pytest.mark.parametrize("recipe", [name for name in recipes() if name.startswith("afd_")])
def test_recipes_of_afd_train_networks_apart_as_its_paper_does(recipe: str) -> None:
    assert parse_config(["--config", recipe], "codistill train").shared == 0


def test_the_short_recipes_differ_in_the_method_only() -> None:
    shorts = [parse_config(["--config", f"{name}_resnet8_cifar100_short"], "") for name in METHODS]
    for config in shorts:
        apart = config.method["name"] in ("codistillation", "afd")  # as in their papers
        assert config.shared == (0 if apart else 2)
        assert replace(config, method={}, shared=0) == replace(shorts[0], method={}, shared=0)


def test_the_method_of_the_page_is_that_of_the_example_and_trains(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "own_method.md").read_text()
    (code,) = blocks(page, "python")
    example = (ROOT / "examples" / "own_method.py").read_text()
    assert bare(code) == bare(example)
    (command,) = blocks(page, "sh")
    arguments = shlex.split(command)[1:]
    monkey = os.environ | {"PYTHONPATH": str(ROOT / "examples"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "codistill", *arguments[1:], "--out", "run"],
        cwd=tmp_path,
        env=monkey,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = (tmp_path / "run" / "history.jsonl").read_text().splitlines()[-1]
    assert "test/top1/judge" in record


def bare(code: str) -> str:
    """The class in a file, without docstrings and annotations."""
    (found,) = [node for node in ast.parse(code).body if isinstance(node, ast.ClassDef)]
    for node in ast.walk(found):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            del node.body[0]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.dump(found)
