"""The card on top of the page: the answer in a sentence, and the networks that ship."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from codistill.messages import counted, signed
from codistill.names import DATASETS
from codistill.reporting.page.dots import dots
from codistill.reporting.page.parts import (
    Answer,
    Beside,
    Facts,
    Figures,
    Fold,
    Paragraph,
    Part,
    Section,
    Table,
)
from codistill.reporting.page.setting import Setting, kept_peer
from codistill.reporting.page.student import Student, is_alone, with_interval
from codistill.runs.results import EPOCH_THAT_SHIPS
from codistill.runs.run import STUDENT

_NAMED = 4
"""Methods without a verdict that the sentence names."""


def answer_of(
    students: Sequence[Student],
    latencies: Mapping[Setting, float],
    of_comparison: Answer | None = None,
) -> Section:
    """The card.

    Args:
        students: the student of each setting.
        latencies: seconds of a forward pass with one image, as far as they were measured.
        of_comparison: the conclusion of a comparison; None outside of one.
    """
    taught = [s for s in students if not is_alone(s.setting)] or students
    answer, remark = (of_comparison, "") if of_comparison else _answer(students)
    parts: list[Part] = [answer, *([Paragraph(remark)] if remark else [])]
    if len(taught) == 1:
        parts.append(Facts([*_facts(taught[0], latencies), *_accuracies(taught[0])]))
        return Section("answer", "In short", "", parts)
    values = {s.setting: {"kept": s.top1, "alone": s.alone} for s in taught}
    title = "Filled: the students. Hollow: the same networks alone, of the same seeds"
    figure = dots(values, "test top-1 [%]", title)
    if len({tuple(s.networks) for s in students}) == 1:
        parts += [Facts(_facts(taught[0], latencies)), Beside([figure], _table(students))]
    else:
        parts += [_table(students, latencies), Figures([figure])]
    files = Facts([(s.setting.title, _files(s)) for s in students])
    parts.append(Fold("Files of the students", [files]))
    return Section("answer", "In short", "", parts)


def question(students: Sequence[Student], compared: bool) -> str:
    """The title of the page, from the data and from what is asked of them."""
    settings = [s.setting for s in students]
    results = [r for s in settings for r in s.results]
    data = " and ".join(
        dict.fromkeys(_data(r.config.data.name, r.config.data.root) for r in results)
    )
    taught = [s for s in settings if not is_alone(s)] or settings
    methods = list(dict.fromkeys(s.results[0].config.method["name"] for s in taught))
    seeds = counted(len({r.config.seed for s in taught for r in s.results}), "seed")
    if compared or any(s.statistics for s in students):
        named = methods[0] if len(methods) == 1 else counted(len(methods), "method")
        return f"Does teaching help on {data}? {named}, {seeds}"
    if len(settings) > 1:
        return f"How good are the students on {data}? {counted(len(settings), 'setting')}, {seeds}"
    return f"How good is the student on {data}? {methods[0]}, {seeds}"


def _data(name: str, root: str | None) -> str:
    """The name of a data set, or that of the folder or file that it is read from."""
    of_user = name in DATASETS and DATASETS[name].num_classes is None
    return (Path(root).name if root and of_user else "") or name


def _answer(students: Sequence[Student]) -> tuple[Answer, str]:
    """The sentence, and a remark on it."""
    judged = [s for s in students if s.statistics]
    if not judged:
        return _without_networks_alone(students)
    said, remark = [], ""
    for verdict in ("helped", "hurt"):
        those = [_difference(s, judged) for s in judged if s.verdict == verdict]
        said += [f"Teaching {verdict} the student: {', '.join(those)}."] if those else []
    rest = [s for s in judged if s.verdict == "open"]
    if rest:
        named = rest if len(rest) <= _NAMED else []
        text = ", ".join(_difference(s, judged) for s in named) or f"{len(rest)} methods, below"
        said.append(f"It is not shown that teaching helped or hurt the student: {text}.")
    if len(judged) > 1:
        remark = (
            f"Helped and hurt are corrected for {len(judged)} methods (Holm, p < 0.05); each "
            "interval stands for itself. "
        )
        if any(s.statistics.n == 1 for s in rest if s.statistics):
            remark += "One pair of runs cannot show a difference: train both with further seeds."
    shown = {s.verdict for s in judged} - {"open"}
    return Answer(" ".join(said), shown.pop() if len(shown) == 1 else "open"), remark.strip()


def _without_networks_alone(students: Sequence[Student]) -> tuple[Answer, str]:
    """What can be said of students without the networks alone beside them."""
    remark = (
        "Whether teaching helped is not known: the report has no run of the network alone "
        "(--method independent) with the same seed and settings."
    )
    if all(is_alone(s.setting) for s in students):
        remark = f"Nobody taught {'it' if len(students) == 1 else 'them'}."
    if len(students) > 1:
        return Answer("The students were not compared with the networks alone.", "open"), remark
    (student,) = students
    images = student.setting.test_images
    right = with_interval(student.top1, images)
    return Answer(f"The student is right about {right} of the test images.", "open"), remark


def _difference(student: Student, judged: Sequence[Student]) -> str:
    method = student.setting.results[0].config.method["name"]
    name = f"{method} ({student.setting.number})" if len(judged) > 1 else method
    return f"{name} {_points(student, ' points')}"


def _points(student: Student, unit: str = "") -> str:
    """The difference to the network alone, with its interval."""
    of = student.statistics
    assert of is not None
    interval = f" [{', '.join(signed(x, 1) for x in of.interval)}]" if of.interval else ""
    return f"{signed(of.mean, 1)}{unit}{interval}"


def _facts(student: Student, latencies: Mapping[Setting, float]) -> list[tuple[str, str]]:
    facts = [("Student", f"{' or '.join(student.networks)}"), ("Size", _size(student))]
    if student.setting in latencies:
        facts.append(("Time for one image", f"{_latency(student, latencies)} on this machine"))
    return facts


def _accuracies(student: Student) -> list[tuple[str, str]]:
    images, seeds = student.setting.test_images, len(student.top1)
    basis = f"mean of {seeds} seeds" if seeds > 1 else counted(images, "test image")
    facts = [("Test accuracy", f"{with_interval(student.top1, images)} ({basis}, 95 % interval)")]
    if student.statistics:
        alone = with_interval(student.alone, images)
        facts.append(("The network alone", f"{alone} ({counted(len(student.alone), 'seed')})"))
    return [*facts, ("File" if seeds == 1 else "Files", _files(student))]


def _table(students: Sequence[Student], latencies: Mapping[Setting, float] | None = None) -> Table:
    """The students, with their networks if `latencies` are given."""
    head = ["#", "method", "difference", "top-1 %", "alone %"]
    rows = []
    for s in students:
        images, result = s.setting.test_images, s.setting.results[0]
        row = [s.setting.head, result.config.method["name"]]
        row.append(_points(s) if s.statistics else "-")
        row.append(with_interval(s.top1, images, ""))
        row.append(with_interval(s.alone, images, "") if s.statistics else "-")
        if latencies is not None:
            row += [" or ".join(s.networks), _size(s), _latency(s, latencies)]
        rows.append(row)
    if latencies is not None:
        head += ["network", "size", "one image"]
    return Table(
        "The students",
        head,
        rows,
        "difference: in points, to the same network that nobody taught, with the same seeds and "
        "settings. Brackets: 95 % intervals over seeds; of a single seed, over draws of the test "
        f"images. top-1: of student.safetensors, {EPOCH_THAT_SHIPS}.",
        headers=2,
    )


def _size(student: Student) -> str:
    """Parameters, and bytes of the file where it is there; those of the first seed."""
    result = student.setting.results[0]
    parameters = result.manifest.parameters.get(kept_peer(result))
    file = result.path / STUDENT
    facts = [f"{parameters / 1e6:.2f} M parameters"] if parameters else []
    facts += [f"{file.stat().st_size / 1e6:.1f} MB"] if file.exists() else []
    return ", ".join(facts) or "-"


def _files(student: Student) -> str:
    """The files, with their accuracies if there are several."""
    files = [r.path / STUDENT for r in student.setting.results]
    if not all(file.exists() for file in files):
        gone = next(file for file in files if not file.exists())
        return f"{STUDENT} is not in {gone.parent}"
    if len(files) == 1:
        return str(files[0])
    scores = zip(files, student.top1, strict=True)
    return ", ".join(f"{file} ({top1:.1f} %)" for file, top1 in scores)


def _latency(student: Student, latencies: Mapping[Setting, float]) -> str:
    if not (ms := 1000 * latencies.get(student.setting, 0)):
        return "-"
    return f"{ms:.2g} ms" if ms < 10 else f"{ms:,.0f} ms"
