"""What the pages show works: Python runs, commands are read by their own parsers, names exist.

A page is followed from its top to its end in a folder of its own, as a reader would: all Python
runs, and each command reads its arguments. The commands of the pages in `RUN` run, too.
"""

import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import pytest
import torch  # GIVEN uses it
from commands_of import codistill
from photo_fakes import encoded, picture, write_classes
from runs_of import train, undrawn

from codistill import build_network, save_student
from codistill.command.main import main
from codistill.comparing.comparison import read_comparison
from codistill.comparing.published_tables import tables
from codistill.methods import METHODS, method_class
from codistill.names import NETWORKS
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig
from codistill.settings.recipes import recipes

ROOT = Path(__file__).parents[1]
PAGES = sorted(str(p.relative_to(ROOT)) for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A block of a page: its language and its text."""

    language: str
    text: str


def source(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str) -> list[Block]:
    return [Block(*found.groups()) for found in FENCE.finditer(source(page))]


RUN = ("README.md", "docs/design.md", "docs/own_method.md", "docs/start.md")
NOT_RUN = {
    "cifar100": "images that are not here",
    "photos": "published weights, which are fetched",
    "list methods": "tests/analysis/test_overview.py runs it: it tries all methods",
    "demo": "tests/command/test_command.py runs it: it takes minutes",
}
"""Commands of the pages in `RUN` that are only read, by a word in them, and why."""

PRINTED = ("README.md", "docs/start.md")
"""Pages whose blocks without a language are what their commands print, but for its numbers."""

LONG = ("analysis", "design", "distributed", "own_method", "start", "training")
"""Pages under docs/ that take a second or more, and that no edit of mutations/ needs."""

GIVEN = {
    "docs/deploy.md": "import torch; images = torch.zeros(2, 3, 8, 8)",
    "docs/distributed.md": "from codistill import DML, Peers, build_network; "
    "method = DML(Peers([build_network('resnet8', 10) for _ in range(2)]))",
    "docs/own_method.md": "from own_method import *",  # the class is that of the example
}
"""What a page leaves to its reader."""


@pytest.fixture(scope="session")
def home(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The home of a reader: photographs, an image, a run on the digits, and a student of timm's."""

    def fill(folder: Path) -> None:
        for split in ("train", "test"):
            write_classes(folder / "photos" / split, {"ant": 20, "bee": 24, "cow": 20})
        (folder / "runs" / "photos").mkdir(parents=True)
        (folder / "cat.jpg").write_bytes(encoded(picture(0)))
        train(folder / "runs" / "first", batch_size=128, epochs=1)
        shipped = build_network("timm/mobilenetv3_small_100", 3)
        about = {"network": "timm/mobilenetv3_small_100", "classes": ["ant", "bee", "cow"]}
        save_student(folder / "runs" / "photos" / "student.safetensors", shipped, about)
        (folder / "recipe.yaml").write_text("method: {name: ffl}\n")
        for name in ("examples", "results", "benchmarks", "tests"):
            (folder / name).symlink_to(ROOT / name)

    return once("home", fill)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.long if Path(page).stem in LONG else ())
        for page in PAGES
        if blocks(page)
    ],
)
def test_a_page_shows_what_works(
    page: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = shutil.copytree(home, tmp_path / "home", symlinks=True)
    if page in RUN:
        shutil.rmtree(here / "runs" / "first")  # which these pages train
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.syspath_prepend(here)
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", torch.backends.cudnn.allow_tf32)
    names: dict[str, Any] = {"__name__": "__main__"}
    printed: list[str] = []
    exec(GIVEN.get(page, ""), names)
    for language, code in blocks(page):
        match language:
            case "python" if file := re.match(r"# (\w+\.py)\n", code):
                (here / file[1]).write_text(code)
            case "python":
                exec(shorter(code), names)
                shown = capsys.readouterr().out
                for said in re.findall(r"^ *print\(.*\)  # (.+)$", code, re.MULTILINE):
                    assert f"{said}\n" in shown
            case "sh":
                for command in commands(code):
                    printed += follow(command, page in RUN)
            case "yaml":
                (here / "file.yaml").write_text(code)
                assert read_comparison(here / "file.yaml").rows
            case "" if page in PRINTED:
                for line in code.splitlines():
                    assert any(x.startswith(form(line)) for x in map(form, printed)), line
            case "":
                assert not re.search(r"^\s*(codistill|import|from \w+ import) ", code, re.MULTILINE)
            case _:
                pytest.fail(f"a block of {language}: nothing follows it")


def shorter(text: str) -> str:
    """Trainings of two epochs, and no process besides this one that reads images."""
    return re.sub(r"workers=\d+", "workers=0", re.sub(r"\bepochs([ =])\d+", r"epochs\g<1>2", text))


def form(line: str) -> str:
    """A line of output without its numbers, its widths and "..." for the rest of it."""
    line = re.sub(r"\d[\d.,]*", "#", line.removesuffix("..."))
    return re.sub(r"-+", "-", re.sub(r"\s+", " ", line).strip())


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command, without comments and "..." for more of the same."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            if words := [word for word in shlex.split(part, comments=True) if word != "..."]:
                yield words


def follow(words: list[str], run: bool) -> list[str]:
    """Runs a command of codistill, or lets it read its arguments; others name what is there.

    Returns:
        what it printed, by lines.

    Raises:
        AssertionError: the command fails.
    """
    line = shlex.join(words)
    if "codistill" in words:
        arguments = words[words.index("codistill") + 1 :]
        if not run or any(x in line for x in NOT_RUN):
            read(arguments)
            return []
        with undrawn():
            done = codistill(*shlex.split(shorter(shlex.join(arguments))))
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return [*done.stdout.splitlines(), *done.stderr.splitlines()]
    first, *others = [word for word in words if not re.match(r"\w+=", word)]
    match first:
        case "make":
            assert re.search(f"^{others[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        case "python" if others[0] != "-m":
            assert (ROOT / others[0]).is_file(), line
        case _:
            assert first in ("python", "python3", ".", "pip", "[", "scontrol"), line
    return []


class ReadError(Exception):
    """The command has read its arguments, and would begin."""


def read(arguments: list[str]) -> None:
    """Lets a command read its arguments, with its own parser, and do no more."""
    with pytest.raises(ReadError), reading_only():
        main(["--traceback", *arguments])


READ_BY = (
    "command.options:Parser.parse_args",
    "command.train:parse_config",
    "command.train:_resume_options",
    "command.inspect:parse_config",
    "comparing.without_file:comparison_of",
    "comparing.comparison:read_comparison",
    "comparing.published_tables:table_named",
)
"""What a command has called when it has read its arguments."""


@contextmanager
def reading_only() -> Iterator[None]:
    def ends(function: Callable[..., Any]) -> Callable[..., Any]:
        def ending(*arguments: Any, **options: Any) -> Any:
            found = function(*arguments, **options)
            if getattr(arguments[0], "prog", "") == "codistill" or getattr(found, "table", ""):
                return found  # the name of a command or of a table, which is looked up next
            raise ReadError

        return ending

    with pytest.MonkeyPatch.context() as patch:
        for name in READ_BY:
            owner, _, attribute = name.replace(":", ".").rpartition(".")
            holder = resolve_name(f"codistill.{owner}")
            patch.setattr(holder, attribute, ends(getattr(holder, attribute)))
        yield


OTHERS = {
    "torchrun": "max-restarts nnodes nproc-per-node signals-to-handle",
    "SLURM": "cpus-per-task gpus-per-node gres kill-on-bad-exit nodes ntasks-per-node "
    "requeue signal time",
}
"""Options of other programs that the pages name."""


def test_options_that_the_pages_name_exist() -> None:
    """In blocks and in the text, where `data.root` is an option too; of any command."""
    files = [*ROOT.glob("src/**/*.py"), *ROOT.glob("benchmarks/*.py")]
    known = {x for f in files for x in re.findall(r'"--([\w.-]+)"', f.read_text())}
    known |= {"help", "data", "method", *(x for line in OTHERS.values() for x in line.split())}
    known |= {f.name for f in fields(Config)} | {f"data.{f.name}" for f in fields(DataConfig)}
    known |= {f"method.{x}" for name in METHODS for x in signature(method_class(name)).parameters}
    unknown = {
        (page, option)
        for page in PAGES
        if page != "CHANGELOG.md"
        for option in re.findall(r"(?:(?<![\w-])--|`(?=data\.))([a-z][\w.-]*\b)", source(page))
        if option not in known
    }
    assert not unknown


FOREIGN = """
aim clearml comet_ml dvclive tc mlflow swanlab tmux mallopt DistributedSampler replicate profiler
mount torchtext legacy KD_Lib optimize_for_inference get_float32_matmul_precision matmul loss_scaler
max_steps every_n_train_steps on_train_epoch_end load_best_model_at_end pyproject toml constraints
MLFLOW_TRACKING_URI TRACKIO_DIR MALLOC_TRIM_THRESHOLD_ MALLOC_MMAP_THRESHOLD_ training_set sd1000
sg CE _cifar100 _cinic10 NAME_resnet32_cifar100 NAME_resnet8_cifar100_short
"""
"""Names in the pages' text that are not codistill's."""


def test_names_that_the_pages_mention_exist() -> None:
    """Each name in backquotes, alone, called or with a value, is a word of the code."""
    files = [*ROOT.glob("src/**/*.py"), *ROOT.glob("examples/*.py")]
    known = {word for f in files for word in re.findall(r"\w+", f.read_text())}
    known |= {*FOREIGN.split(), *NETWORKS, *recipes(), *tables()}
    unknown = {
        (page, span)
        for page in PAGES
        if page != "CHANGELOG.md"
        for span in re.findall(
            r"`([A-Za-z_][\w.]*(?:\([^`]*\)|:? [\w.]+)?)`", FENCE.sub("", source(page))
        )
        if not known.issuperset(re.findall(r"[A-Za-z_]\w*", re.split("[(: ]", span)[0]))
    }
    assert not unknown


def test_extras_that_the_pages_install_exist() -> None:
    extras = tomllib.loads(source("pyproject.toml"))["project"]["optional-dependencies"]
    for page in PAGES:
        for named in re.findall(r"codistill\[([\w,-]+)\]", source(page)):
            assert extras.keys() >= {*named.split(",")}, page
