"""Tables and pictures of runs."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from runs_of import undrawn, write_run

from codistill.command.main import main
from codistill.errors import InputError
from codistill.reporting.page.write import write_page
from codistill.reporting.tables import compared, print_table, rows, spread_of, write_report
from codistill.reporting.text import markdown_table, text_table
from codistill.runs.finished import code_notes, load_result, load_results
from codistill.runs.manifest import Process
from codistill.runs.results import last_five
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig


def test_seeds_of_one_setting_stand_together(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(s), [10.0, 50.0 + s], seed=s) for s in range(3)]
    (row,) = rows(load_results(runs))
    assert row[:5] == ["independent resnet32 x1", "peer0", "51.00 ± 1.00", "-", "-"]
    assert row[7] == "3"


def test_the_epoch_that_validation_chose_has_its_own_column(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(s), [50.0 + s], seed=s, best=40.0 + s) for s in range(2)]
    (row,) = rows(load_results(runs))
    assert row[2:5] == ["50.50 ± 0.71", "-", "40.50 ± 0.71"]


def test_the_mean_of_the_last_five_epochs_has_its_own_column(tmp_path: Path) -> None:
    top1 = [10.0] * 5 + [50.0, 52.0, 54.0, 56.0, 60.0]
    runs = [write_run(tmp_path / str(s), [x + s for x in top1], seed=s) for s in range(2)]
    (row,) = rows(load_results(runs))
    assert row[2:5] == ["60.50 ± 0.71", "54.90 ± 0.71", "-"]
    (head, line), *_ = [
        [cells.strip("| \n").split(" | ") for cells in text.splitlines()[::2][:2]]
        for path in write_report(load_results(runs), tmp_path / "report")
        if (text := path.read_text(errors="ignore")).startswith("| setting | classifier")
    ]
    assert dict(zip(head, line, strict=True))["last 5 %"] == "54.90 ± 0.71"
    csv = (tmp_path / "report" / "runs.csv").read_text().splitlines()
    of_second = dict(zip(csv[0].split(","), csv[2].split(","), strict=True))
    assert (of_second["seed"], of_second["last_five/test/top1"]) == ("1", "55.4000")
    assert of_second["last_five/test/nll"] == "1.0000"


@pytest.mark.parametrize("epochs", [9, 10])
def test_the_last_five_of_fewer_than_ten_epochs_are_no_end(epochs: int, tmp_path: Path) -> None:
    (row,) = rows(load_results([write_run(tmp_path / "run", [50.0] * epochs)]))
    assert row[3] == ("-" if epochs == 9 else "50.00")


def test_the_last_five_are_not_there_if_one_was_not_evaluated(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [50.0] * 12)
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    for metric in ("top1", "top5", "nll"):
        del lines[8][f"test/{metric}/peer0"]
    (run / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (row,) = rows(load_results([run]))
    assert row[2:4] == ["50.00", "-"]


def test_a_metric_that_one_of_the_last_five_lacks_has_no_mean() -> None:
    history = [{"test/top1/peer0": 50.0 + k, "test/nll/peer0": 1.0} for k in range(10)]
    del history[7]["test/nll/peer0"]
    assert last_five(history) == {"peer0": {"test/top1": 57.0}}


@pytest.mark.parametrize(
    ("values", "said"),
    [([1.0, 3.0], "2.00 ± 1.41"), ([1.0, math.inf], "inf"), ([1.0, math.nan], "nan")],
)
def test_a_number_that_is_not_finite_has_no_spread(values: list[float], said: str) -> None:
    assert spread_of(values) == said


def test_other_images_stand_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f, [50.0], seed=i, fingerprint=f) for i, f in enumerate("ab")]
    assert len(load_results(runs)) == 2


def test_the_same_images_elsewhere_stand_together(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / str(s), [50.0], seed=s, data=DataConfig(root=f"/disk{s}"))
        for s in range(2)
    ]
    assert len(load_results(runs)) == 1


def test_other_settings_stand_apart(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", [50.0]),
        write_run(tmp_path / "b", [60.0], lr=0.2),
        write_run(tmp_path / "c", [70.0], data=DataConfig(val_fraction=0.2)),
    ]
    assert [(r[0], r[2]) for r in rows(load_results(runs))] == [
        ("independent resnet32 x1 val_fraction=None lr=0.1", "50.00"),
        ("independent resnet32 x1 val_fraction=None lr=0.2", "60.00"),
        ("independent resnet32 x1 val_fraction=0.2 lr=0.1", "70.00"),
    ]


def test_the_report_is_written_and_the_picture_is_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10.0, 50.0])
    table, side_by_side, numbers, picture = write_report(load_results([run]), tmp_path / "report")
    assert "| independent resnet32 x1 | peer0 | 50.00 |" in table.read_text()
    assert (
        numbers.read_text()
        .splitlines()[1]
        .startswith("independent resnet32 x1,0,peer0,2,10,50.0000,")
    )
    assert "| independent resnet32 x1 | 50.00 | 50.00 | - | - | 0 | 100 | 1 |" in (
        side_by_side.read_text()
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000


def test_a_seed_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10.0])
    with pytest.raises(InputError, match="give each seed once"):
        load_results([run, run])


@pytest.mark.parametrize("name", ["history.jsonl", "result.json", "manifest.json"])
def test_a_damaged_run_is_named(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10.0])
    (run / name).write_text('{"epochs')
    with pytest.raises(InputError, match="is damaged"):
        load_results([run])


@pytest.mark.parametrize(
    ("file", "key", "value", "said"),
    [
        ("manifest.json", "parameters", {"peer0": 1}, "parameters lacks peers, method"),
        ("manifest.json", "data", {}, "data lacks fingerprint"),
        ("manifest.json", "images", {"test": "10"}, "images.test is '10': give a whole number"),
        ("manifest.json", "processes", ["cpu"], "it holds 'cpu', not names and values"),
        ("manifest.json", "classes", None, "classes is None: give a list"),
        ("result.json", "last", {}, "it lacks the accuracy of 'peer0', which is exported"),
        ("result.json", "epochs", None, "epochs is None: give a whole number"),
    ],
)
def test_what_is_damaged_is_named(
    file: str, key: str, value: object, said: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", [10.0])
    tree = json.loads((run / file).read_text()) | {key: value, "unknown": 1}
    (run / file).write_text(json.dumps(tree))
    with pytest.raises(InputError, match=f"{file} is damaged: {said}$"):
        load_result(run)


def test_keys_of_other_versions_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10.0])
    manifest = json.loads((run / "manifest.json").read_text())
    process = asdict(Process.now(torch.device("cpu"), 0, 0)) | {"kernels": ["one"]}
    manifest |= {"processes": [process], "kernels": None}
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert load_result(run).manifest.processes[0].device == "cpu"


def test_a_loss_term_may_begin_late(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10.0, 20.0])
    first, second = (run / "history.jsonl").read_text().splitlines()
    late = json.dumps(json.loads(second) | {"loss/kd": 1.0})
    (run / "history.jsonl").write_text(f"{first}\n{late}\n")
    write_report(load_results([run]), tmp_path / "report")


def test_a_run_that_is_not_finished_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10.0])
    (run / "result.json").unlink()
    with pytest.raises(InputError, match="a run that is not finished"):
        load_results([run])


def test_the_table_fits_a_terminal_of_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    runs = [write_run(tmp_path / str(s), [50.0 + s], seed=s) for s in range(2)]
    assert main(["report", *map(str, runs)]) == 0
    text = capsys.readouterr().out
    assert "50.50 ± 0.71" in text
    assert "…" not in text


def test_methods_stand_side_by_side(tmp_path: Path) -> None:
    def write(name: str, seed: int, **classifiers: float) -> Path:
        run = write_run(tmp_path / f"{name}{seed}", [0.0], seed=seed)
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("name: independent", f"name: {name}"))
        summary = json.loads((run / "result.json").read_text())
        summary["last"] = {n: {"test/top1": t} for n, t in classifiers.items()}
        summary["best_by_validation"] = {n: {"test/top1": t + 0.5} for n, t in classifiers.items()}
        kept = "leader" if "leader" in classifiers else "peer1"
        summary["student"] = {"last": "peer0", "best": kept, "best_epoch": 1}
        (run / "result.json").write_text(json.dumps(summary))
        return run

    runs = [
        write("dml", 0, peer0=40.0, peer1=42.0, ensemble=45.0),
        write("dml", 1, peer0=42.0, peer1=44.0, ensemble=47.0),
        write("okddip", 0, peer0=50.0, peer1=52.0, ensemble=55.0, leader=52.0),
    ]
    assert [row[:5] for row in compared(load_results(runs))] == [
        ["dml resnet32 x1", "42.00 ± 1.41", "43.50 ± 1.41", "46.00 ± 1.41", "-"],
        ["okddip resnet32 x1", "51.00", "52.50", "55.00", "leader 52.00"],
    ]


def test_a_result_of_another_version_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10.0])
    summary = json.loads((run / "result.json").read_text())
    summary["student"] = {"peer": 0, "best_epoch": None}
    (run / "result.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match=r"result.json is damaged: it lacks last, best$"):
        load_results([run])


RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.long
def test_every_run_under_results_opens() -> None:
    runs = [file.parent for file in RESULTS.rglob("result.json")]
    assert runs
    for run in runs:
        load_result(run)


def test_a_run_with_a_setting_that_no_longer_exists_opens(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(seed), [10.0], seed=seed) for seed in range(2)]
    file = runs[0] / "config.yaml"
    file.write_text(file.read_text() + "kernels: true\n")
    (results,) = load_results(runs).values()
    assert results[0].config == Config.read(runs[0] / "config.yaml")
    file.write_text(file.read_text() + "colour: true\n")
    with pytest.raises(InputError, match="colour"):
        load_results(runs)


def test_settings_of_one_method_are_told_apart_by_the_options_that_differ(tmp_path: Path) -> None:
    def write(number: int, **options: object) -> Path:
        run = write_run(tmp_path / str(number), [10.0])
        config = Config.read(run / "config.yaml")
        config.method = {"name": "kdcl", "temperature": 2.0} | options
        (run / "config.yaml").write_text(config.to_yaml())
        return run

    runs = [write(0, target="naive"), write(1, target="linear")]
    assert list(load_results(runs)) == [
        "kdcl resnet32 x1 target=naive",
        "kdcl resnet32 x1 target=linear",
    ]


@pytest.mark.long
def test_runs_of_one_row_by_different_versions_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(seed: int, commits: list[str], changed: bool, release: str = "1.0") -> Path:
        run = write_run(tmp_path / f"{len(list(tmp_path.iterdir()))}", [50.0], seed=seed)
        git = [{"commit": commit * 40, "changed": changed} for commit in commits] or [None]
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["git"] = {"codistill": git[0], "folder": None}
        process = asdict(Process.now(torch.device("cpu"), 0, 0))
        process["packages"] = {"codistill": release}
        manifest["processes"] = [process | {"git": g} for g in git]
        (run / "manifest.json").write_text(json.dumps(manifest))
        return run

    def notes(*runs: Path) -> list[str]:
        groups = load_results(list(runs))
        found = code_notes(groups)
        table, side_by_side, *_ = write_report(groups, tmp_path / "report")
        for file in (table, side_by_side):
            assert file.read_text().count("Note: ") == len(found)
        assert main(["report", *map(str, runs)]) == 0
        assert capsys.readouterr().out.count("note: ") == len(found)
        return found

    one = write(0, ["a"], False)
    assert notes(one, write(1, ["a"], False)) == []
    begins = "different versions of codistill trained the runs of 'independent resnet32 x1': "
    assert notes(one, write(1, ["b"], False)) == [
        f"{begins}seed 0 by aaaaaaaaa, seed 1 by bbbbbbbbb"
    ]
    assert notes(one, write(1, ["a"], True))[0].endswith("seed 1 by aaaaaaaaa with changes")
    assert notes(write(1, ["a", "b"], False))[0].endswith("seed 1 by aaaaaaaaa and bbbbbbbbb")
    assert notes(write(2, [], False), write(3, [], False, "1.1"))[0].endswith(
        "seed 2 by 1.0, seed 3 by 1.1"
    )
    assert notes(write_run(tmp_path / "old", [50.0])) == []  # says nothing of its version


def test_parameters_are_those_of_the_classifier(tmp_path: Path) -> None:
    def column(parameters: dict[str, int]) -> dict[str, str]:
        run = write_run(tmp_path / str(len(parameters)), [0.0])
        manifest = json.loads((run / "manifest.json").read_text()) | {"parameters": parameters}
        (run / "manifest.json").write_text(json.dumps(manifest))
        summary = json.loads((run / "result.json").read_text())
        names = ("peer0", "ensemble", "fused")
        summary["last"] = {n: {"test/top1": 1.0, "test/top5": 1.0, "test/nll": 1.0} for n in names}
        (run / "result.json").write_text(json.dumps(summary))
        _, side_by_side, numbers, _ = write_report(load_results([run]), run / "report")
        lines = [line.split(",") for line in numbers.read_text().splitlines()[1:]]
        added = side_by_side.read_text().splitlines()[2].split("|")[6].strip()
        return {line[2]: line[4] for line in lines} | {"added": added}

    assert column({"peer0": 10, "peers": 25, "method": 5}) == {
        "peer0": "10",
        "ensemble": "25",
        "fused": "30",
        "added": "5",
    }
    assert column({"peer0": 10, "peers": 25, "method": 5, "frozen": 1200}) == {
        "peer0": "10",
        "ensemble": "25",
        "fused": "",
        "added": "5 (+ 1,200)",
    }


def test_a_table_for_the_terminal_is_aligned() -> None:
    rows = [["a heading over all columns"], ["日本", "1.00", ""], ["c", "10.00", "x"]]
    assert text_table(("class", "value", ""), rows, "A caption.").splitlines() == [
        "class  value",
        "---------------",
        "a heading over all columns",
        "日本    1.00",
        "c      10.00  x",
        "",
        "A caption.",
    ]


def test_markdown_shows_text_as_it_is() -> None:
    assert markdown_table(("a|b", "*c*"), [["x_y _z_ [d]", "<i>\n`[e](f)`"]]).splitlines() == [
        "| a\\|b | \\*c\\* |",
        "| --- | --- |",
        "| x_y \\_z\\_ [d] | &lt;i&gt; \\`[e\\](f)\\` |",
    ]


@pytest.mark.parametrize("has_it", [0, 1])
def test_a_classifier_that_one_seed_lacks_is_left_out_and_named(
    tmp_path: Path, has_it: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A method of one's own may get a further classifier between two seeds."""
    runs = [write_run(tmp_path / str(seed), [50.0, 51.0], seed=seed) for seed in (0, 1)]
    add_classifiers(runs[has_it], "ensemble", "fused")
    ((label, results),) = load_results(runs).items()
    assert [row[1] for row in rows({label: results})] == ["peer0"]
    (row,) = compared({label: results})
    assert (row[3], row[4]) == ("-", "-")
    said = (
        f"un {has_it} also has ensemble, fused, which other seeds lack: left out. The code of the "
        "method was changed between them"
    )
    print_table({label: results})
    assert said in capsys.readouterr().out
    write_report({label: results}, tmp_path / "report")
    assert said in (tmp_path / "report" / "table.md").read_text()
    with undrawn():
        page = write_page({label: results}, tmp_path / "page")[1].read_text()
    assert said in page
    assert "60.00" not in page
    of_one = load_results(runs[has_it : has_it + 1])
    assert [row[1] for row in rows(of_one)] == ["peer0", "ensemble", "fused"]


def test_a_network_that_ships_is_not_left_out(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(seed), [50.0], seed=seed) for seed in (0, 1)]
    add_classifiers(runs[1], "leader", kept="leader")
    with pytest.raises(InputError, match=r"1 exports 'leader', which other seeds .* do not have"):
        load_results(runs)


def add_classifiers(run: Path, *names: str, kept: str = "peer0") -> None:
    metrics = {"test/top1": 60.0, "test/top5": 90.0, "test/nll": 1.0}
    result = json.loads((run / "result.json").read_text())
    result["last"] |= dict.fromkeys(names, metrics)
    result["student"]["last"] = kept
    (run / "result.json").write_text(json.dumps(result))
