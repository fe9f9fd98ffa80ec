"""Writes the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from codistill import files
from codistill.finished_runs import Result, version_notes
from codistill.page.cost import accuracy_and_cost
from codistill.page.curves import learning_curves
from codistill.page.drawing import require_matplotlib
from codistill.page.flow import flow_of_knowledge
from codistill.page.head import seeds_that_lack, tables, what_was_compared
from codistill.page.html import render_html, require_jinja
from codistill.page.losses import loss_terms
from codistill.page.parts import Section
from codistill.page.settings import settings_of
from codistill.page.text import render_markdown


def write_page(
    groups: Mapping[str, Sequence[Result]],
    folder: Path,
    *,
    published: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    after_tables: Sequence[Section] = (),
) -> list[Path]:
    """Writes report.html and report.md; returns where.

    Args:
        groups: the runs of each setting, by its label.
        folder: where to; it is made.
        published: figures of others by label.
        notes: what the reader has to know of the runs.
        after_tables: sections to stand behind the tables.
    """
    require_matplotlib()
    require_jinja()
    settings = settings_of(groups)
    notes = [*notes, *(f"{note}." for note in version_notes(groups)), *seeds_that_lack(settings)]
    sections = [
        what_was_compared(settings, notes),
        tables(settings, published or {}),
        *after_tables,
        learning_curves(settings),
        loss_terms(settings),
        flow_of_knowledge(settings),
        accuracy_and_cost(settings),
    ]
    runs = sum(len(s.results) for s in settings)
    data = ", ".join(dict.fromkeys(r.config.data.name for s in settings for r in s.results))
    title = f"{_count(len(settings), 'setting')}, {_count(runs, 'run')} on {data}"
    lead = (
        "Networks that taught each other while they were trained (online knowledge distillation), "
        "compared by codistill. The test images chose nothing here."
    )
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / "report.html", render_html(title, lead, sections))
    files.write_text(folder / "report.md", render_markdown(title, lead, sections))
    return [folder / "report.html", folder / "report.md"]


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
