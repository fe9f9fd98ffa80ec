"""The papers' tables that come with codistill, at both scales."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
import yaml
from data_fakes import make_fake, write_extracted
from toys import build_once

from codistill.analysis.cost.step_time import seconds_per_image
from codistill.command.main import main
from codistill.comparing.comparison import Comparison, Row
from codistill.comparing.published_tables import PublishedTable, Scale, tables
from codistill.methods.length import Length, scaled_defaults
from codistill.names import DATASETS
from codistill.runs.folder import locked
from codistill.runs.run import Run
from codistill.settings.build_method import build_method

TABLES = tables()
IMAGENET = pytest.param("imagenet", marks=pytest.mark.slow)  # torchvision's networks are cut
EACH = [IMAGENET if name == "imagenet" else name for name in TABLES]
OTHER_IMAGES = ("okdmde_cifar10", "okdmde_cinic10", "mfef_cifar10", "mfef_cinic10")  # else the same
SHORT = "ffl_two_architectures_cifar100"


@functools.cache
def comparison(name: str, scale: Scale) -> Comparison:
    return TABLES[name].at(scale, None, {}).comparison()


def classes_and_size(row: Row) -> tuple[int, tuple[int, int]]:
    known, size = DATASETS[row.config.data.name], row.config.data.image_size or 224
    return known.num_classes or 10, known.image_size or (size, size)


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in EACH if n not in OTHER_IMAGES])
def test_every_method_of_a_table_can_be_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codistill.settings.build_method.build_network", build_once)
    rows = comparison(name, "paper").rows
    first = {(row.config.method["name"], row.config.peers): row for row in reversed(rows)}
    for row in first.values():
        method = build_method(row.config, *classes_and_size(row))
        assert not method.scales.keys() & row.config.method.keys(), row.label
        assert max(row.config.milestones) < row.config.epochs
        run = Length(row.config.epochs, 391 * row.config.epochs)
        scaled = scaled_defaults(type(method), run)
        assert max(scaled.get("adversarial_milestones", [0])) < row.config.epochs
        if row.config.method["name"] == "afd":
            assert row.config.shared == 0, row.label


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in EACH if n not in OTHER_IMAGES])
def test_every_row_of_a_short_table_takes_a_step(name: str) -> None:
    for row in comparison(name, "short").rows:
        assert row.config.epochs <= 3
        small = dataclasses.replace(row.config, batch_size=2, device="cpu")
        assert seconds_per_image(small, *classes_and_size(row), torch.device("cpu"), times=1) > 0, (
            row.label
        )


@pytest.mark.parametrize("name", TABLES)
def test_a_paper_s_table_says_of_every_row_what_is_published_or_that_it_is_not_at_hand(
    name: str,
) -> None:
    paper = comparison(name, "paper")
    assert list(paper.published) == [row.label for row in paper.rows]
    given = TABLES[name].comparison.get("published", {})
    for label, figure in paper.published.items():
        assert figure["value"] == (given[label]["value"] if label in given else "not at hand")
    assert TABLES[name].source in paper.note
    assert TABLES[name].differs.strip() in paper.note


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_a_short_table_says_what_it_is_and_shows_no_published_figure(
    table: PublishedTable,
) -> None:
    short = comparison(table.name, "short")
    assert not short.published
    assert short.note.startswith("SHORT VERSION")
    assert "not comparable" in short.note
    assert f"for 3 epochs{' of other images' if table.name == 'imagenet' else ''} in" in short.note


def test_the_short_methods_are_those_of_the_table() -> None:
    for name, table in TABLES.items():
        paper, short = (table.at(scale, None, {}).tree for scale in ("paper", "short"))
        assert paper["methods"].keys() == short["methods"].keys(), name
        for label, options in paper["methods"].items():
            assert options.get("shared") == short["methods"][label].get("shared"), (name, label)


def test_settings_and_seeds_of_the_command_win_over_the_table_s() -> None:
    over = {"threads": 1, "data": {"root": "/images"}}
    tree = TABLES["okdmde_cinic10"].at("short", [3, 4], over).tree
    assert tree["seeds"] == [3, 4]
    assert tree["settings"]["threads"] == 1
    assert tree["settings"]["epochs"] == 3
    assert tree["settings"]["data"]["name"] == "cinic10"
    assert tree["settings"]["data"]["root"] == "/images"


def test_the_list_says_how_long_each_table_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name}\n" in shown for name in TABLES)
    assert "paper: 48 runs (3 seeds) of 300 epochs of 50,000 images" in shown
    assert main(["list", "tables"]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.long
def test_a_dry_run_shows_the_runs_and_their_cost_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["reproduce", SHORT, "--scale", "short", "--dry-run", "--out", str(out)]
    assert main([*arguments, "--seeds", "0", "1", "--threads", "1"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "SHORT VERSION" in shown
    assert "6 runs: seeds 0, 1; 3 epochs of 50,000 images of cifar100, together about" in shown
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["ffl_cifar10"], "did you mean 'ffl_cifar100'?"),
        (["ffl_cifar100", "--scale", "long"], "invalid choice"),
        (["ffl_cifar100", "--parallel", "0"], "not a whole number above 0"),
        (["imagenet", "--scale", "short"], "give --data.root"),
        (["ffl_cifar100", "--seeds", "-1", "--dry-run"], "error: --seeds: seeds are [-1]"),
        (["ffl_cifar100", "--seeds", "1", "1"], "error: --seeds: seeds are [1, 1]"),
        ([SHORT, "--loggers", "wandbb", "--dry-run"], "did you mean 'wandb'?"),
        ([SHORT, "--precision", "fp8", "--dry-run"], f"error: {SHORT}: "),
    ],
)
def test_what_cannot_be_reproduced_is_answered_with_one_line(
    arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["reproduce", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert answer in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A comparison's file in its folder, with other seeds than the table's."""
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / "comparison.yaml"
    file.write_text(TABLES[SHORT].at("short", [5], {}).comparison().text)
    return file


@pytest.mark.long
def test_the_file_of_a_comparison_that_is_being_trained_is_left_alone(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_extracted(tmp_path, make_fake("cifar100"))
    before = stored.read_text()
    arguments = ["reproduce", SHORT, "--data.root", str(tmp_path), "--loggers", "none"]
    with locked(stored.parent):
        assert main([*arguments, "--out", str(stored.parent)]) == 2
    assert "another process is training" in capsys.readouterr().err
    assert stored.read_text() == before


def test_a_report_alone_is_that_of_the_stored_comparison(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stored.read_text()
    arguments = ["reproduce", SHORT, "--scale", "short", "--report-only", "--seeds", "6"]
    assert main([*arguments, "--out", str(stored.parent)]) == 2
    assert f"holds no finished run of {stored}" in capsys.readouterr().err
    assert stored.read_text() == before


@pytest.mark.slow
def test_a_short_table_is_trained_and_its_report_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CODISTILL_CACHE", str(tmp_path / "cache"))
    write_extracted(tmp_path, make_fake("cifar100", per_class=10))  # of which one is held out
    out = tmp_path / "out"
    places = ["--data.root", str(tmp_path), "--out", str(out), "--threads", "1"]
    status = main(["reproduce", SHORT, "--scale", "short", *places, "--loggers", "none"])
    shown = capfd.readouterr()
    assert status == 0, shown.err
    assert shown.err.count("SHORT VERSION") == 2
    for page in ("differences.md", "compared.md", "table.md"):
        assert "SHORT VERSION" in (out / page).read_text(), page
    assert "published" not in (out / "compared.md").read_text().splitlines()[0]
    runs = sorted((out / "runs").iterdir())
    assert len(runs) == len(yaml.safe_load((out / "comparison.yaml").read_text())["methods"]) + 1
    assert all(len(Run(run).history()) == 3 for run in runs)
