"""The card on top of a page: its sentence, its numbers, and where the student is wrong."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs_of import write_run
from test_page import analysis_of

from codistill.analysis import Mistake, Mistakes
from codistill.reporting.page.markdown import render_markdown
from codistill.reporting.page.measure import Measured
from codistill.reporting.page.parts import Answer, Panels, Section, Table
from codistill.reporting.page.sections.answer import answer_of, question
from codistill.reporting.page.sections.mistakes import what_is_mistaken
from codistill.reporting.page.setting import Setting, settings_of
from codistill.reporting.page.student import Student, students_of, with_interval
from codistill.runs.finished import load_results
from codistill.settings.data_config import DataConfig

Runs = dict[str, list[float]]


def settings_with(folder: Path, of: Runs, **changes: object) -> list[Setting]:
    """A setting for each method, a seed for each accuracy."""
    folder.mkdir(exist_ok=True)
    runs = [
        write_run(folder / f"{method}{seed}", [top1], seed, method={"name": method}, **changes)
        for method, values in of.items()
        for seed, top1 in enumerate(values)
    ]
    return settings_of(load_results(runs))


def students_with(folder: Path, of: Runs) -> list[Student]:
    return students_of(settings_with(folder, of))


def sentence(students: list[Student]) -> str:
    (answer,) = [p for p in answer_of(students, {}).parts if isinstance(p, Answer)]
    return f"{answer.verdict}: {answer.text}"


def table_of(section: Section, caption: str) -> Table:
    (table,) = [p for p in section.parts if isinstance(p, Table) and p.caption == caption]
    return table


@pytest.mark.parametrize(
    ("taught", "said"),
    [
        ([62.0, 63.1, 64.0], "helped: Teaching helped the student: dml +2.0 points [+1.9, +2.2]."),
        ([58.0, 59.1, 60.0], "hurt: Teaching hurt the student: dml -2.0 points [-2.1, -1.8]."),
        ([62.0, 57.0, 61.0], "open: It is not shown that teaching helped or hurt the student: dml"),
        (
            [62.0],
            "open: It is not shown that teaching helped or hurt the student: dml +2.0 points.",
        ),
    ],
)
def test_the_answer_is_a_sentence(tmp_path: Path, taught: list[float], said: str) -> None:
    students = students_with(tmp_path, {"dml": taught, "independent": [60.0, 61.0, 62.0]})
    assert sentence(students).startswith(said)
    seeds = "3 seeds" if len(taught) > 1 else "1 seed"
    title = f"Does teaching help on digits? dml, {seeds}"
    assert question(students, compared=False) == title


def test_the_verdicts_are_corrected_for_their_number(tmp_path: Path) -> None:
    """Alone p is 0.03; of three such methods none is shown."""
    students = students_with(
        tmp_path / "one", {"dml": [61.0, 62.6, 63.5], "independent": [60.0, 61.0, 62.0]}
    )
    assert [s.verdict for s in students] == ["helped", "open"]
    methods = {name: [61.0, 62.6, 63.5] for name in ("dml", "ffl", "kdcl")}
    students = students_with(tmp_path / "all", methods | {"independent": [60.0, 61.0, 62.0]})
    assert {s.verdict for s in students} == {"open"}
    assert students[0].statistics is not None
    assert students[0].statistics.p is not None
    assert students[0].p == pytest.approx(3 * students[0].statistics.p)


def test_a_run_alone_is_judged_by_its_images(tmp_path: Path) -> None:
    students = students_with(tmp_path, {"dml": [80.0]})
    text = render_markdown("t", "l", [answer_of(students, {})])
    assert "**The student is right about 80.0 % [49.0, 94.3] of the test images.**" in text
    assert "Whether teaching helped is not known" in text
    for seconds, said in ((0.00123, "1.2"), (0.0123, "12"), (0.1234, "123")):
        answer = render_markdown("t", "l", [answer_of(students, {students[0].setting: seconds})])
        assert f"- Time for one image: {said} ms on this machine" in answer
    assert "student.safetensors is not in" in text
    assert question(students, compared=False) == "How good is the student on digits? dml, 1 seed"


def test_a_network_that_nobody_taught_is_called_so(tmp_path: Path) -> None:
    text = render_markdown(
        "t", "l", [answer_of(students_with(tmp_path, {"independent": [80.0]}), {})]
    )
    assert "Nobody taught it." in text


def test_networks_alone_with_other_settings_are_no_measure(tmp_path: Path) -> None:
    settings = settings_with(tmp_path / "a", {"dml": [62.0]}, lr=0.1)
    other = settings_with(tmp_path / "b", {"independent": [60.0]}, lr=0.2)
    elsewhere = settings_with(tmp_path / "c", {"independent": [60.0]}, lr=0.1, fingerprint="g")
    for alone in (other, elsewhere):
        assert students_of([*settings, *alone])[0].statistics is None
    label = other[0].label
    assert students_of([*settings, *other], {settings[0].label: label})[0].alone == [60.0]


def test_a_network_is_compared_with_its_like(tmp_path: Path) -> None:
    """The student stands first in its own run, and second in that of the networks alone."""
    own = settings_with(tmp_path / "a", {"dml": [62.0]}, peers=2, network="resnet8,resnet20")
    (alone,) = settings_with(
        tmp_path / "b", {"independent": [60.0]}, peers=2, network="resnet20,resnet8"
    )
    last = alone.results[0].scores.last
    last["peer1"] = last["peer0"] | {"test/top1": 55.0}
    (student, _) = students_of([*own, alone])
    assert (student.networks, student.alone) == (["resnet8"], [55.0])


def test_several_students_stand_in_a_table_with_their_files(tmp_path: Path) -> None:
    students = students_with(tmp_path, {"dml": [62.0, 63.0], "ffl": [61.0], "independent": [60.0]})
    (tmp_path / "ffl0" / "student.safetensors").write_bytes(bytes(2_000_000))
    text = render_markdown("t", "l", [answer_of(students, {})])
    assert "| 1 | dml | +2.0 | 62.5" in text
    assert "| 2 | ffl | +1.0 | 61.0 [32.1, 83.8] | 60.0 [" in text
    assert "| 3 | independent | - | 60.0 [31.3, 83.2] | - |" in text
    assert f"{tmp_path}/ffl0/student.safetensors" in text


def test_intervals_stay_within_what_is_possible() -> None:
    assert with_interval([99.0, 90.0], 10) == "94.5 % [37.3, 100.0]"


def test_data_of_the_user_are_called_by_their_folder(tmp_path: Path) -> None:
    data = DataConfig(name="folder", root="/home/me/my photos")
    settings = settings_with(tmp_path, {"dml": [80.0]}, data=data)
    title = question(students_of(settings), compared=False)
    assert title == "How good is the student on my photos? dml, 1 seed"


def mistaken(
    folder: Path, counts: dict[tuple[int, int], int], classes: int, *files: Path
) -> Section:
    (setting,) = settings_with(folder, {"dml": [80.0]})
    image = np.zeros((4, 4, 3), np.uint8)
    surest = tuple(Mistake(7, 0, 1, 0.9, image, f.name, f) for f in files)
    analysis = analysis_of(mistakes=Mistakes("peer0", Counter(counts), surest))
    names = tuple(f"c{i}" for i in range(classes))
    return what_is_mistaken(Measured({setting: [replace(analysis, classes=names)]}))


def test_few_classes_have_a_confusion_matrix(tmp_path: Path) -> None:
    section = mistaken(tmp_path, {(0, 0): 9, (0, 1): 2, (1, 1): 1, (1, 0): 1}, 2)
    matrix = table_of(section, "Confusion matrix")
    assert matrix.rows == [["c0", "9", "2"], ["c1", "1", "1"]]
    assert matrix.shades == [[0.0, 1.0], [0.5, 0.0]]  # the right ones are not dark
    by_class = table_of(section, "Accuracy by class, the worst first")
    assert by_class.rows == [["c1", "50", "1", "2"], ["c0", "82", "9", "11"]]


def test_of_many_classes_the_most_confused_pairs_are_shown(tmp_path: Path) -> None:
    counts = {(i, i): i + 1 for i in range(20)} | {(3, 4): 5, (4, 3): 6, (1, 2): 1}
    section = mistaken(tmp_path, counts, 20)
    pairs = table_of(section, "The most confused pairs of classes")
    assert pairs.rows == [
        ["c4", "c3", "6", "55"],
        ["c3", "c4", "5", "56"],
        ["c1", "c2", "1", "33"],
    ]
    by_class = table_of(section, "Accuracy by class, the worst first")
    assert (len(by_class.rows), by_class.rows[0][:2]) == (12, ["c3", "44"])
    assert by_class.below == "The 6 worst and the 6 best of 20 classes."


def test_a_wrong_photograph_leads_to_its_file(tmp_path: Path) -> None:
    file = tmp_path / "a b.jpg"
    section = mistaken(tmp_path / "runs", {(0, 1): 1}, 2, file)
    (panels,) = [p for p in section.parts if isinstance(p, Panels)]
    (panel,) = panels.rows[0]
    assert panel.link == f"file://{tmp_path}/a%20b.jpg"
    assert panel.text == "c1 90%, is c0: a b.jpg"
    assert "- c1 90%, is c0: a b.jpg" in render_markdown("t", "l", [section])


def test_many_methods_without_a_verdict_are_counted(tmp_path: Path) -> None:
    methods = {name: [60.0] for name in ("dml", "ffl", "kdcl", "one", "okddip")}
    students = students_with(tmp_path, methods | {"independent": [60.0]})
    assert sentence(students).endswith("hurt the student: 5 methods, below.")
    text = render_markdown("t", "l", [answer_of(students, {})])
    assert "corrected for 5 methods" in text
    assert "One pair of runs cannot show a difference" in text
