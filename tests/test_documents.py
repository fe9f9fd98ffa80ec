"""What the documents say is true: links, tables, recipes; and the examples run.

tests/test_pages.py follows what the pages show.
"""

import ast
import inspect
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toys import build_once

import codistill as package
from codistill import Network, build_network, save_student
from codistill.methods import METHODS, method_class
from codistill.names import NETWORKS
from codistill.settings.arguments import parse_config
from codistill.settings.build_method import build_method
from codistill.settings.recipes import recipes

ROOT = Path(__file__).parents[1]


EXAMPLES = sorted(p.name for p in (ROOT / "examples").glob("*.py"))


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in EXAMPLES if not n.startswith("with_")])
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


OTHERS = """
import runpy, sys
from codistill.importing import optional

optional("torchvision", "the libraries, even if it was built for another PyTorch")
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n == "with_accelerate.py" else pytest.mark.slow)
        for n in EXAMPLES
        if n.startswith("with_")
    ],
)
def test_an_example_with_another_library_learns(name: str, tmp_path: Path) -> None:
    """In a process of its own: these libraries warn, and change what is global."""
    done = subprocess.run(
        [sys.executable, "-c", OTHERS, str(ROOT / "examples" / name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"  # it asserts its accuracy
    page = (ROOT / "docs" / "loops.md").read_text()
    assert f"(../examples/{name})" in page


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_pictures(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)

    def shown() -> tuple[int, float]:
        """The number of pictures, and the accuracy in the last cell that prints one."""
        outputs = [out for cell in book.cells for out in cell.get("outputs", [])]
        (accuracy,) = re.findall(r"([\d.]+) % of a batch", str(outputs))
        return sum("image/png" in out.get("data", {}) for out in outputs), float(accuracy)

    assert shown()[0] == 2  # on a code host, where nothing is executed
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=300, kernel_name="python3", resources=where).execute()
    pictures, accuracy = shown()
    assert pictures == 2
    assert accuracy > 70


PAGES = [*ROOT.glob("*.md"), *(p for d in ("docs", "results") for p in (ROOT / d).rglob("*.md"))]


def anchors(page: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower().strip()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_page_has_a_place_on_the_site() -> None:
    listed = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text()))
    pages = {str(p.relative_to(ROOT)) for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]}
    assert listed == pages | {"docs/api.md", "results/README.md"}


@pytest.mark.slow
def test_the_site_is_built_without_warnings(tmp_path: Path) -> None:
    build = [sys.executable, str(ROOT / "docs" / "site" / "build.py"), "--site-dir", str(tmp_path)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr  # a warning is an error
    assert "WARNING" not in done.stderr
    page = (tmp_path / "docs" / "api" / "index.html").read_text()
    for name in package.__all__:
        assert f'.{name}"' in page, name
    assert 'href="../methods/' in (tmp_path / "docs" / "loops" / "index.html").read_text()


def test_the_files_that_recipes_name_exist() -> None:
    for recipe in (ROOT / "recipes").rglob("*.yaml"):
        for name in re.findall(r"\b(?:results|docs)/[\w./-]+\b", recipe.read_text()):
            assert (ROOT / name).exists(), f"{recipe.name}: {name}"


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


def shown(default: Any) -> set[float | str]:
    """What a page shows of a default."""
    words: dict[Any, float | str] = {True: "on", False: "off", None: "none"}
    if isinstance(default, bool | None):
        return {words[default]}
    return {*default} if isinstance(default, tuple) else {default}


def value(word: str) -> float | str:
    """A word of a page: a number if it is one."""
    word = word.strip(",;:.")
    try:
        return float(word)
    except ValueError:
        return word


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_and_two_recipes(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    for part in ("**Evaluated:**", "**Kept:**"):
        assert part in page, part
    arguments = inspect.signature(method_class(name)).parameters
    for option in arguments.keys() - {"peers", "standardise"}:
        assert f"`{option}`" in page, option
    for named, cell in re.findall(r"^\| (`.*?) \| (.*?) \|", page, re.MULTILINE):
        for option in re.findall(r"`(\w+)`", named):
            if option in arguments:
                assert shown(arguments[option].default) <= {*map(value, cell.split())}, option
    assert {f"{name}_resnet32_cifar100", f"{name}_resnet8_cifar100_short"} <= recipes().keys()


def test_the_option_that_many_methods_share_is_said_once() -> None:
    page = (ROOT / "docs" / "methods" / "README.md").read_text()
    assert "`--method.standardise true`" in page
    having = {n for n in METHODS if "standardise" in inspect.signature(method_class(n)).parameters}
    assert METHODS.keys() - having == {"independent"}


def test_the_page_on_networks_has_them_all_in_order() -> None:
    page = (ROOT / "docs" / "networks.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(NETWORKS)


@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_the_page_on_networks_says_what_they_are(name: str) -> None:
    page = (ROOT / "docs" / "networks.md").read_text()
    with torch.device("meta"):
        hundred = build_network(name, 100)
        with FlopCounterMode(display=False) as counter:
            hundred(torch.empty(2, 3, 32, 32))
    count = sum(p.numel() for p in hundred.parameters())
    of_a_class = hundred.head[-1].in_features + 1
    counts = [f"{n:,}" for n in (count - 90 * of_a_class, count)]
    maps = zip(hundred.channels, hundred.reductions, strict=True)
    stages = ", ".join(f"{d}@{32 // reduction}" for d, reduction in maps)
    facts = [f"`{name}`", *counts, f"{counter.get_total_flops() / 2e6:,.1f}", stages]
    assert f"| {' | '.join(facts)} |" in page


def as_resnet18(name: str, *arguments: Any, **options: Any) -> Network:
    """Has the stages of ResNet-34 and ResNet-50, which tests/command/test_reproduce.py builds."""
    larger = ("torchvision/resnet34", "torchvision/resnet50")
    name = "torchvision/resnet18" if name in larger else name
    return build_once(name, *arguments, **options)


@pytest.mark.long
@pytest.mark.parametrize(
    "recipe",
    sorted(sorted(recipes().keys() - {"photos"}), key=lambda name: name.partition("_resnet")[2]),
)
def test_a_recipe_builds_its_method(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("codistill.settings.build_method.build_network", as_resnet18)
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


@pytest.mark.long
def test_the_short_recipes_differ_in_the_method_only() -> None:
    shorts = [parse_config(["--config", f"{name}_resnet8_cifar100_short"], "") for name in METHODS]
    for config in shorts:
        apart = config.method["name"] in ("codistillation", "afd")  # as in their papers
        assert config.shared == (0 if apart else 2)
        assert replace(config, method=shorts[0].method, shared=0) == replace(shorts[0], shared=0)


def test_the_page_on_own_methods_shows_the_example() -> None:
    """tests/test_pages.py follows the page."""
    page = (ROOT / "docs" / "own_method.md").read_text()
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    assert bare(found[1]) == bare((ROOT / "examples" / "own_method.py").read_text())


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
