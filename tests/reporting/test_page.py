"""The page on runs: what is in it, and what it needs from elsewhere, which is nothing."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import cast
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console
from runs_of import changed, ended_with, found_in, plus, result_of, undrawn, write_run

from codistill.analysis import (
    Analysis,
    Bin,
    Calibration,
    HeatMap,
    MapSimilarity,
    Missing,
    Picture,
    Similarities,
)
from codistill.command.main import main
from codistill.errors import InputError
from codistill.messages import signed
from codistill.reporting.comparison import _refuse_other_images
from codistill.reporting.page.html import render_html
from codistill.reporting.page.markdown import render_markdown
from codistill.reporting.page.measure import Measured, MeasureOptions
from codistill.reporting.page.parts import Beside, Code, Panels, Paragraph, Section, Table
from codistill.reporting.page.sections.calibration import calibration_of_classifiers
from codistill.reporting.page.sections.differences import Compared
from codistill.reporting.page.sections.disagreement import flow_of_knowledge
from codistill.reporting.page.sections.grad_cam import where_they_look
from codistill.reporting.page.sections.settings_and_tables import tables
from codistill.reporting.page.sections.similarity import likeness_of_maps
from codistill.reporting.page.setting import settings_of
from codistill.reporting.page.write import write_page
from codistill.runs.finished import load_results
from codistill.runs.progress import live_bars
from codistill.settings.data_config import DataConfig

HARMLESS = {"href": ("#", "data:,"), "src": ("data:",)}


class Page(HTMLParser):
    """What the tests look at: ids, references, drawings, tables by caption, words by section."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: list[str] = []
        self.references: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.drawings: list[str] = []
        self.photographs = 0
        self.tables: dict[str, list[list[str]]] = {}
        self.sections: dict[str, str] = {}
        self.unnamed: list[str] = []
        self._section = self._caption = ""
        self._rows: list[list[str]] = []
        self._cell: list[str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [given["id"]] if given.get("id") else []
        for name in ("href", "src", "srcset", "action", "poster", "data", "background"):
            if name in given:
                self.references.append((name, given[name] or ""))
        for name, value in given.items():
            if name == "src":
                continue  # what a drawing holds is looked at by itself
            self.references += [("url", ref) for ref in re.findall(r"url\(([^)]*)\)", value or "")]
        if tag == "section":
            self._section = given.get("id") or ""
        if tag == "img":
            kind, _, data = (given["src"] or "").partition(",")
            if kind == "data:image/svg+xml":
                self.drawings.append(unquote(data))
                words = "\n".join(ElementTree.fromstring(self.drawings[-1]).itertext())
                self.sections[self._section] = self.sections.get(self._section, "") + words
            self.photographs += kind == "data:image/webp;base64"
            if "alt" not in given or not (given["alt"] or given.get("class") == "sample"):
                self.unnamed.append("img")
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th", "caption"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self._rows[-1].append("".join(self._cell))
        if tag == "caption" and self._cell is not None:
            self._caption = "".join(self._cell)
        if tag in ("td", "th", "caption"):
            self._cell = None
        if tag == "table":
            assert self._caption
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)
        self.sections[self._section] = self.sections.get(self._section, "") + data


def page_of(runs: list[Path], folder: Path, how: MeasureOptions | None = None) -> Page:
    with undrawn():
        html, _ = write_page(load_results(runs), folder, how)
    return Page(html.read_text())


@pytest.fixture(scope="module")
def page(digits_report: Path) -> Page:
    return Page((digits_report / "report.html").read_text())


@pytest.mark.long
def test_every_section_is_there_and_shows_something(page: Page) -> None:
    assert list(page.sections)[1:] == [
        "answer",
        "runs",
        "tables",
        "mistakes",
        "curves",
        "losses",
        "flow",
        "alike",
        "trust",
        "classes",
        "looks",
        "cost",
    ]
    assert len(page.drawings) > 20
    wrong = 2 * 8
    assert page.photographs == wrong + 2 * (3 + 1 + 4 + 1 + 1)  # both settings, then each
    assert page.tags.count("img") == len(page.drawings) + page.photographs


def test_nothing_is_fetched_from_anywhere(digits_report: Path, page: Page) -> None:
    for name, reference in page.references:
        harmless = ("#",) if name == "url" else HARMLESS[name]
        assert reference.startswith(harmless), reference
    style = re.findall(
        r"<style[^>]*>(.*?)</style>", (digits_report / "report.html").read_text(), re.DOTALL
    )
    assert not re.search(r"@import|url\((?!#)|https?:", "".join(style))
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.tags.count("link") == 1  # the empty icon, so that none is asked for


def test_every_id_is_there_once_and_every_reference_leads_to_one(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    targets = [ref.strip("'\"")[1:] for _, ref in page.references if ref.strip("'\"")[:1] == "#"]
    assert len(targets) == 12  # a link to each section
    assert set(targets) <= set(page.ids)
    for drawing in page.drawings:
        ids = re.findall(r'\bid="([^"]*)"', drawing)
        links = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', drawing)
        assert len(ids) == len(set(ids))
        assert {"".join(link) for link in links} <= {f"#{i}" for i in ids}


def test_every_picture_has_words(page: Page, digits_report: Path) -> None:
    assert page.unnamed == []
    assert not re.search(r"[^.]\.\.(?!\.)", (digits_report / "report.md").read_text())


def test_the_numbers_are_those_of_runs_csv(digits_report: Path, page: Page) -> None:
    with (digits_report / "runs.csv").open() as file:
        lines = list(csv.DictReader(file))
    rows = page.tables["Every classifier"][1:]
    assert len(rows) == 5
    labels = {row[0]: row[1] for row in page.tables["Settings"][1:]}
    for number, classifier, top1, _, best, *_ in rows:
        name = labels[number], classifier
        found = [x for x in lines if (x["setting"], x["classifier"]) == name]
        for cell, column in ((top1, "test/top1"), (best, "best/test/top1")):
            values = [float(x[column]) for x in found]
            assert cell.startswith(f"{sum(values) / len(values):.2f}")
            assert ("±" in cell) == (len(values) > 1)


def test_the_divergence_of_two_peers_after_the_last_epoch_is_in_a_line(
    digits_runs: list[Path], page: Page
) -> None:
    lines = [(run / "history.jsonl").read_text().splitlines()[-1] for run in digits_runs[:2]]
    values = [json.loads(line)["test/kl/peer1/peer0"] for line in lines]
    said = f"peer1 ‖ peer0: {sum(values) / 2:.3f} ±"
    assert said in page.sections["flow"]
    assert "KL divergence [nats] after the last epoch" not in page.tables


def test_three_peers_have_matrices(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10.0], peers=3)
    peers = [f"peer{k}" for k in range(3)]
    pairs = {f"test/kl/{i}/{j}": 0.25 * (i < j) + 0.25 for i in peers for j in peers if i != j}
    record = json.loads((run / "history.jsonl").read_text()) | pairs
    (setting,) = settings_of(load_results([run]))
    scores = setting.results[0].scores
    scores = replace(scores, last=dict.fromkeys(peers, scores.last["peer0"]))
    result = replace(setting.results[0], scores=scores, history=[record])
    with undrawn():
        section = flow_of_knowledge([replace(setting, results=[result])])
    (matrix,) = [part for part in section.parts if isinstance(part, Table)]
    assert matrix.rows[2] == ["peer2", "0.250", "0.250", "-"]
    assert matrix.shades[0] == [0.0, 1.0, 1.0]


def test_calibration_has_the_nll_of_the_history(digits_runs: list[Path], page: Page) -> None:
    last = json.loads((digits_runs[2] / "history.jsonl").read_text().splitlines()[-1])
    (row,) = [r for r in page.tables["Calibration of every classifier"] if r[0] == "2"]
    assert float(row[4]) == pytest.approx(last["test/nll/peer0"], abs=1e-3)


def test_flops_of_the_kept_network_are_those_of_the_page_on_networks(page: Page) -> None:
    rows = {tuple(r[:2]): r for r in page.tables["What accuracy costs"][1:]}
    kept, several = rows["2", "kept"], rows["1", "ensemble"]
    parameters, ensemble = int(kept[3].replace(",", "")), int(several[3].replace(",", ""))
    assert 70_000 < parameters < 90_000
    assert float(kept[4]) < float(several[4]) < 2 * float(kept[4])
    assert parameters < ensemble < 2 * parameters


@pytest.mark.long
def test_the_same_runs_give_the_same_bytes_but_for_the_latency(
    digits_runs: list[Path], digits_report: Path, tmp_path: Path
) -> None:
    write_page(load_results(digits_runs), tmp_path, MeasureOptions(images=(3, 17)))
    for name in ("report.html", "report.md"):
        one, other = ((folder / name).read_text() for folder in (tmp_path, digits_report))
        texts = [re.sub(r"[\d.e+]+ ms on this", "ms on this", text) for text in (one, other)]
        assert texts[0] == texts[1]
        assert texts[0] != one


@pytest.mark.long
def test_what_users_named_is_shown_as_text(digits_runs: list[Path], tmp_path: Path) -> None:
    label = "<script>alert('x')</script> & $\\frac$ \"q\" | *b*"
    (results,) = load_results(digits_runs[:1]).values()
    html, markdown = write_page({label: results, "b": results}, tmp_path, published={label: "<i>"})
    page = Page(html.read_text())
    assert "script" not in page.tags
    assert "i" not in page.tags
    assert page.tables["Settings"][1][1] == label
    assert "<script>" not in markdown.read_text()
    assert "\\| \\*b\\*" in markdown.read_text()


def test_one_run_of_one_peer_without_validation_has_a_page(tmp_path: Path) -> None:
    """As older versions wrote them: no FLOPs, no weights; and no machine."""
    run = write_run(tmp_path / "run", [10.0, 50.0])
    page = page_of([run], tmp_path / "report", MeasureOptions())
    assert "weights.safetensors is not in" in page.sections["trust"]
    assert "weights.safetensors is not in" in page.sections["looks"]
    assert "One peer, so no pairs" in page.sections["flow"]
    assert "No images were held out" in page.sections["curves"]
    assert "FLOPs of independent resnet32 x1 are not recorded" in page.sections["cost"]
    assert page.tables["Every classifier"][1][2] == "50.00"


def test_a_run_without_its_images_says_so(digits_runs: list[Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(digits_runs[0], tmp_path / "run"))
    (run / "weights.safetensors").unlink()
    page = page_of([run, digits_runs[2]], tmp_path / "report", MeasureOptions())
    gone = f"1. ffl resnet8 x2 shared 2: weights.safetensors is not in {run}."
    for name in ("alike", "trust", "classes", "looks"):
        assert gone in page.sections[name]
    assert len(page.tables["Calibration of every classifier"]) == 2  # the head, and the other run


@pytest.mark.long
def test_analysis_can_be_left_out(digits_runs: list[Path], tmp_path: Path) -> None:
    assert main(["report", str(digits_runs[0]), "--out", str(tmp_path), "--no-analysis"]) == 0
    page = Page((tmp_path / "report.html").read_text())
    assert "--no-analysis" in page.sections["runs"]
    assert not {"alike", "trust", "classes", "looks"} & set(page.sections)


def test_an_image_that_is_none_is_refused(
    digits_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["report", str(digits_runs[0]), "--out", str(tmp_path), "--images"]
    assert main([*arguments, "3,x"]) == 2
    assert "give places from 0, with commas, such as 3,17" in capsys.readouterr().err
    assert main([*arguments, "100000"]) == 2
    assert "there is no test image 100000: there are 899, from 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_image_that_a_setting_has_not_is_left_out_and_said(
    digits_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = page_of(digits_runs[:1], tmp_path, MeasureOptions(images=(3, 100000)))
    line = "1. ffl resnet8 x2 shared 2: there is no test image 100000: there are 899, from 0."
    assert line in page.sections["looks"]
    said = capsys.readouterr().err
    assert said.count(line) == 1
    assert page.photographs == 8 + 1 + 4  # mistakes, and image 3


@pytest.mark.long
def test_images_that_are_gone_are_told_once_in_the_terminal(
    digits_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = page_of(digits_runs, tmp_path, MeasureOptions(root="/nowhere"))
    assert "leave out --data.root" in page.sections["trust"]
    (said,) = capsys.readouterr().err.splitlines()
    assert "1. ffl resnet8 x2 shared 2; 2. independent resnet8 x1: " in said


def test_pictures_stand_side_by_side_where_they_show_the_same_images(tmp_path: Path) -> None:
    def pictures(*grey: int) -> tuple[Picture, ...]:
        looks = (HeatMap("ensemble", 1, 0.9, np.ones((4, 4), np.float32), False),)
        return tuple(
            Picture(i, 1, np.full((4, 4, 3), g, np.uint8), looks) for i, g in enumerate(grey)
        )

    runs = [write_run(tmp_path / str(i), [50.0], lr=i / 8) for i in (1, 2, 3, 4)]
    runs.append(write_run(tmp_path / "other", [50.0], lr=0.9, fingerprint="g"))
    settings = settings_of(load_results(runs))
    shown = [pictures(1, 2), pictures(1, 3), pictures(1, 2), pictures(1), pictures(1, 2)]
    of = {s: [analysis_of(pictures=p)] for s, p in zip(settings, shown, strict=True)}
    section = where_they_look(Measured(of))
    tables = [part for part in section.parts if isinstance(part, Panels)]
    assert [table.head[1:] for table in tables] == [
        [f"{s.number}: ensemble" for s in (settings[0], settings[2])]
    ]
    assert len(section.missing) == 1
    for s in settings:
        assert (s.title in section.missing[0]) == (s.number in (2, 4, 5))


def test_an_unusable_device_is_refused_before_anything_is_measured(
    digits_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["report", str(digits_runs[0]), "--out", str(out), "--device", "none"]) == 2
    assert "device 'none' cannot be used here" in capsys.readouterr().err
    assert not out.exists()


def test_of_two_own_classifiers_the_last_is_shown_however_good(tmp_path: Path) -> None:
    (setting,) = settings_of(load_results([write_run(tmp_path / "0", [50.0])]))
    (first,) = setting.results
    names = {"peer0": 50.0, "ensemble": 51.0, "gated": 70.0, "fused": 60.0, "mean0": 80.0}
    last = {name: first.scores.last["peer0"] | {"test/top1": v} for name, v in names.items()}
    other = replace(setting, results=[changed(first, last=last, students={"mean0": 0})])
    assert other.own_classifier == "fused"
    (beside, *_) = tables([other, replace(other, number=2)], {}).parts
    assert isinstance(beside, Beside)
    assert "fused 60.00" in beside.figures[0].description
    assert "gated" not in beside.figures[0].description


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("history.jsonl", "", "history.jsonl has 0 epochs, result.json 1"),
        ("history.jsonl", "[1, 2]\n", "line 1 is no record of numbers"),
        ("history.jsonl", '{"epoch": null}\n', "line 1 is no record of numbers"),
        (
            "manifest.json",
            '{"parameters": {}, "data": {"fingerprint": "f"}}',
            "it lacks command, git, classes, image_size, images",
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, text: str, said: str) -> None:
    run = write_run(tmp_path / "run", [50.0])
    (run / file).write_text(text)
    with pytest.raises(InputError, match=rf"run(/{file})? is damaged: {said}"):
        load_results([run])


@pytest.mark.long
def test_labels_are_one_line_and_stay_as_they_are_in_figures(tmp_path: Path) -> None:
    label = ' new\n\tline\x07 id="z" url(#a) x="1.2345"'
    (results,) = load_results([write_run(tmp_path / "0", [50.0])]).values()
    html, _ = write_page({label: results, "b": results}, tmp_path / "report")
    page = Page(html.read_text())
    line = 'new line id="z" url(#a) x="1.2345"'
    assert page.tables["Settings"][1][1] == line
    assert f"1. {line}" in page.sections["tables"]  # in the figure


def test_names_with_brackets_are_shown_as_they_are_in_bars() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with live_bars(console) as progress:
        progress.add_task("measuring a[/red]", total=1)
    assert "measuring a[/red]" in cast(io.StringIO, console.file).getvalue()


def test_missing_and_few_seeds_are_said(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"a{s}", [50.0 + s], seed=s) for s in range(3)]
    runs.append(write_run(tmp_path / "b", [60.0], seed=1, lr=0.2))
    page = page_of(runs, tmp_path / "report")
    assert "2. independent resnet32 x1 lr=0.2: seeds 0, 2 missing." in (page.sections["runs"])
    assert (
        "Fewer than three seeds, so the standard deviation is hardly known: setting 2."
        in page.sections["runs"]
    )
    assert page.tables["Options in which the settings differ"][2][1] == "lr=0.2"


def test_a_map_that_is_the_same_for_all_images_has_no_cka(tmp_path: Path) -> None:
    dead = MapSimilarity("peer0", "peer1", 4, 4, True, None, 0.0, 0.0)
    other = replace(dead, cka=0.5, cosine=0.7, cosine_other_images=0.2)
    runs = [write_run(tmp_path / str(lr), [50.0], lr=lr) for lr in (0.1, 0.2)]
    first, second = settings_of(load_results(runs))
    analyses = [analysis_of(similarity=_similarities(p)) for p in (dead, other)]
    section = likeness_of_maps(Measured({first: analyses, second: analyses[1:]}))
    text = render_markdown("t", "l", [section])
    assert "| 1 | peer0, peer1 | 4 | - | 0.350 ± 0.495 | 2 |" in text
    assert "| 1 | 2 | - | 0.350 ± 0.495 | 0.100 ± 0.141 | 2 |" in text
    assert "2 same image 0.700, 2 other images 0.200" in text
    assert "a dead peer" in text
    (alone,) = [likeness_of_maps(Measured({first: analyses[:1]}))]
    assert "CKA, mean over pairs" not in render_markdown("t", "l", [alone])


def analysis_of(**parts: object) -> Analysis:
    """What was measured of a run: nothing, but for these parts."""
    names = ("predictions", "calibration", "class_accuracy", "mistakes", "changes")
    names += ("similarity", "pictures")
    found = dict.fromkeys(names, Missing("not measured")) | parts
    facts = ("last", "test", ("cat", "dog"), "peer0", "ensemble")
    return Analysis(Path("run"), *facts, **found)  # type: ignore[arg-type]


def _similarities(pair: MapSimilarity) -> Similarities:
    return Similarities(10, 10, 2, (pair,), ())


def test_other_images_are_said_not_to_be_comparable(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f, [50.0], fingerprint=f) for f in "ab"]
    page = page_of(runs, tmp_path / "report")
    assert "accuracies on them cannot be compared" in page.sections["runs"]


def test_other_draws_of_test_images_are_said_not_to_be_comparable(tmp_path: Path) -> None:
    seeds = [
        DataConfig(name="folder", root="x", test_fraction=0.3, split_seed=seed) for seed in (0, 1)
    ]
    runs = [write_run(tmp_path / f"{d.split_seed}", [50.0], data=d) for d in seeds]
    said = page_of(runs, tmp_path / "report").sections["runs"]
    assert "accuracies on them cannot be compared" in said
    assert "of which 30% to test on were drawn with data.split_seed 1" in said
    groups = load_results(runs)
    with pytest.raises(InputError, match="were tested on different images"):
        _refuse_other_images(groups)
    divided = [
        write_run(tmp_path / f"d{seed}", [50.0], data=DataConfig(name="digits", split_seed=seed))
        for seed in (0, 1)
    ]  # the seed draws only what chooses the epoch
    assert "cannot be" not in page_of(divided, tmp_path / "divided").sections["runs"]
    _refuse_other_images(load_results(divided))


def test_shares_of_loss_terms_are_those_of_their_sum(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10.0])
    record = json.loads((run / "history.jsonl").read_text()) | {"loss/ce": 3.0, "loss/cd": -1.0}
    (run / "history.jsonl").write_text(json.dumps(record) + "\n")
    html, markdown = write_page(load_results([run]), tmp_path / "report")
    drawings = Page(html.read_text()).drawings
    assert not any("mathdefault" in drawing for drawing in drawings)  # TeX in the place of numbers
    assert "ce 75.0 %, cd 25.0 %" in markdown.read_text()


def test_what_a_method_measured_has_a_figure_of_its_own_and_no_share(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10.0])
    terms = {"loss/ce": 3.0, "loss/cd": -1.0, "measure/d0_real": 97.5, "measure/d0_fake": 12.0}
    record = json.loads((run / "history.jsonl").read_text()) | terms
    (run / "history.jsonl").write_text(json.dumps(record) + "\n")
    html, markdown = write_page(load_results([run]), tmp_path / "report")
    text = markdown.read_text()
    assert "In the last epoch: ce 75.0 %, cd 25.0 %." in text
    assert "Mean after the last one: d0_real 97.5, d0_fake 12." in text
    assert ": measured in training steps, n = 1" in html.read_text()


def test_the_markdown_has_the_tables_of_the_page(digits_report: Path, page: Page) -> None:
    def escaped(text: str) -> str:
        return re.sub(r"([|*])", r"\\\1", text).replace(">", "&gt;").replace("<", "&lt;")

    text = (digits_report / "report.md").read_text()
    for caption, rows in page.tables.items():
        assert f"**{escaped(caption)}**" in text
        assert f"| {' | '.join(map(escaped, rows[1]))} |" in text, caption


def test_the_comparison_has_its_differences_on_the_page(tmp_path: Path) -> None:
    alone = {"peer0": 60.0, "peer1": 61.0, "ensemble": 64.0}
    found = found_in(
        independent={s: result_of(plus(alone, s), s) for s in range(3)},
        ffl={s: result_of(plus(alone, s + 1 + s / 10), s) for s in range(3)},
    )
    runs = [write_run(tmp_path / "run", [50.0])]
    compared = Compared(list(found.values()), {}, "It helped.")
    html, _ = write_page(load_results(runs), tmp_path, compared=compared)
    page = Page(html.read_text())
    rows = page.tables["Differences to the networks alone after the last epoch"]
    assert rows[0][2:6] == ["verdict", "against", "n", "difference [95 % CI]"]
    assert rows[1][:5] == ["ffl", "mean peer", "helped", "mean peer", "3"]
    assert rows[1][5].startswith("+1.10 [")
    assert "It helped." in page.sections["answer"]
    assert compared.answer.verdict == "helped"
    assert "Differences to the networks alone over the last five epochs" not in page.tables


def test_the_differences_over_the_last_five_epochs_have_a_table(tmp_path: Path) -> None:
    alone = {"peer0": 60.0, "peer1": 61.0, "ensemble": 64.0}
    found = found_in(independent={0: ended_with(alone, 0.0)}, ffl={0: ended_with(alone, 2.0)})
    runs = [write_run(tmp_path / "run", [50.0] * 10)]
    compared = Compared(list(found.values()), {}, "It helped.")
    html, _ = write_page(load_results(runs), tmp_path, compared=compared)
    rows = Page(html.read_text()).tables[
        "Differences to the networks alone over the last five epochs"
    ]
    assert rows[0][2:6] == ["verdict", "against", "n", "difference [95 % CI]"]
    assert rows[1][5] == "+2.00"


def test_rows_need_not_be_there_for_a_table() -> None:
    html = render_html("t", "l", [Section("a", "A", "how", [Table("c", ("x", "y"), [])])])
    assert Page(html).tables["c"] == [["x", "y"]]


def test_no_name_ends_a_block_of_code_or_begins_one() -> None:
    parts = [Code("commands", ["a", "```", "# not a heading"]), Paragraph("~~~ name")]
    text = render_markdown("title", "lead", [Section("s", "S", "how", parts)])
    assert "````sh\na\n```\n# not a heading\n````" in text
    assert "\n~~~" not in text


def test_too_few_images_for_a_reliability_diagram_are_said(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (setting,) = settings_of(load_results([write_run(tmp_path / "run", [50.0])]))
    few = Calibration((Bin(0.0, 1.0, 19, 0.5, 0.5),), 0.1, 0.1, 0.1, 0.1)
    enough = replace(few, bins=(Bin(0.0, 1.0, 20, 0.5, 0.5),))
    for found, figures in ((few, 0), (enough, 1)):
        analysis = analysis_of(calibration={"peer0": found})
        section = calibration_of_classifiers(Measured({setting: [analysis]}))
        (beside,) = section.parts
        assert isinstance(beside, Beside)
        assert len(beside.figures) == figures
        said = ["A reliability diagram needs 20 test images in a bin: there are too few of "]
        assert [line[:66] for line in section.missing] == [line[:66] for line in said[figures:]]
    assert not list(recwarn)


def test_what_is_rounded_to_nothing_has_no_sign() -> None:
    assert [signed(x, 1) for x in (-0.04, 0.04, -0.06, 1.0)] == ["0.0", "0.0", "-0.1", "+1.0"]


def test_peers_of_several_networks_are_called_by_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [50.0], peers=2, network="resnet8,timm/resnet10t")
    (setting,) = settings_of(load_results([run]))
    setting.results[0].scores.last["peer1"] = setting.results[0].scores.last["peer0"]
    names = [setting.called(name) for name in ("peer0", "peer1", "ensemble")]
    assert names == ["peer0 resnet8", "peer1 resnet10t", "ensemble"]
    (alike,) = settings_of(load_results([write_run(tmp_path / "alike", [50.0])]))
    assert alike.called("peer0") == "peer0"
