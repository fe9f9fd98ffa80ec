"""Writes the page."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from codistill import files
from codistill.importing import optional
from codistill.reporting.page.html import render_html
from codistill.reporting.page.markdown import render_markdown
from codistill.reporting.page.measure import Measured, MeasureOptions, measure
from codistill.reporting.page.parts import Section
from codistill.reporting.page.sections.answer import answer_of, question
from codistill.reporting.page.sections.calibration import calibration_of_classifiers
from codistill.reporting.page.sections.classes import classes_that_change
from codistill.reporting.page.sections.cost import accuracy_and_cost
from codistill.reporting.page.sections.curves import learning_curves
from codistill.reporting.page.sections.differences import Compared, what_helped
from codistill.reporting.page.sections.disagreement import flow_of_knowledge
from codistill.reporting.page.sections.grad_cam import where_they_look
from codistill.reporting.page.sections.losses import loss_terms
from codistill.reporting.page.sections.mistakes import what_is_mistaken
from codistill.reporting.page.sections.settings_and_tables import (
    few_seeds,
    seeds_of_others,
    tables,
    what_was_compared,
)
from codistill.reporting.page.sections.similarity import likeness_of_maps
from codistill.reporting.page.setting import Setting, one_line, settings_of
from codistill.reporting.page.student import students_of
from codistill.runs.finished import Result, code_notes

_LEAD = (
    "Written by codistill, which trains networks that teach each other (online knowledge "
    "distillation). The test images chose no epoch and no network, only the classes and "
    "photographs that are shown."
)


def require_page() -> None:
    """Raises MissingExtraError if a package that the page needs is not installed."""
    optional("matplotlib", "drawing curves")
    optional("jinja2", "writing a page")
    optional("scipy.stats", "comparing runs")


def write_page(
    settings: Mapping[str, Sequence[Result]],
    folder: Path,
    how: MeasureOptions | None = None,
    *,
    compared: Compared | None = None,
    published: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> list[Path]:
    """Writes report.html and report.md; returns their paths.

    Args:
        settings: the runs of each setting, by its label.
        folder: folder to write to; it is made if it does not exist.
        how: how the networks are measured on their test images; None: not at all.
        compared: what a comparison found beside the networks alone.
        published: figures of others by label.
        sources: lines on these figures.
        notes: notes for the reader on the runs.
    """
    require_page()
    numbered = settings_of(settings)
    if not compared:  # a comparison brings notes of its own
        notes = [*notes, *code_notes(settings), *seeds_of_others(numbered)]
    notes = [*notes, *few_seeds(numbered)]
    if how is None:
        notes.append(
            "the networks were not measured (--no-analysis), so feature maps, calibration, classes "
            "and Grad-CAM are left out"
        )
    measured = measure(numbered, how, Console(stderr=True)) if how else None
    students = students_of(numbered, compared.baselines if compared else None)
    sections = [
        answer_of(
            students, measured.latencies if measured else {}, compared.answer if compared else None
        ),
        what_was_compared(numbered, notes),
        tables(numbered, {one_line(k): v for k, v in (published or {}).items()}, sources),
        *([what_helped(compared.differences, numbered)] if compared else []),
        *_other_sections(numbered, measured),
    ]
    page = question(students, compared is not None), _LEAD, sections
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / "report.html", render_html(*page))
    files.write_text(folder / "report.md", render_markdown(*page))
    return [folder / "report.html", folder / "report.md"]


def _other_sections(settings: Sequence[Setting], measured: Measured | None) -> Iterator[Section]:
    if measured:
        yield what_is_mistaken(measured)
    yield learning_curves(settings)
    yield loss_terms(settings)
    yield flow_of_knowledge(settings)
    if measured:
        yield likeness_of_maps(measured)
        yield calibration_of_classifiers(measured)
        yield classes_that_change(measured)
        yield where_they_look(measured)
    yield accuracy_and_cost(settings, measured.training if measured else None)
