"""The page as Markdown: its words and tables, and descriptions of its figures."""

import re
from collections.abc import Iterator, Sequence

from codistill.reporting.page.parts import (
    Answer,
    Beside,
    Code,
    Facts,
    Figures,
    Fold,
    Key,
    Panels,
    Paragraph,
    Part,
    Section,
    Table,
)
from codistill.reporting.text import escaped, markdown_table


def render_markdown(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole page as text, for repositories."""
    blocks = [f"# {escaped(title)}", escaped(lead)]
    for section in sections:
        blocks += [f"## {escaped(section.title)}", *([escaped(section.how)] if section.how else [])]
        blocks += [f"> {escaped(line)}" for line in section.missing]
        for part in section.parts:
            blocks += _blocks(part)
    return "\n\n".join(blocks) + "\n"


def _blocks(part: Part) -> Iterator[str]:
    match part:
        case Paragraph():
            yield ("> " if part.note else "") + escaped(part.text)
        case Table():
            yield f"**{escaped(part.caption)}**"
            yield markdown_table(part.head, part.rows)
            if part.below:
                yield escaped(part.below)
        case Figures():
            for figure in part.figures:
                yield f"*Figure: {escaped(figure.title)}.* {escaped(figure.description)}"
        case Beside():
            yield from _blocks(Figures(part.figures))
            yield from _blocks(part.table)
        case Panels() if part.head:
            rows = [[cell.text for cell in row] for row in part.rows]
            yield from _blocks(Table(part.caption, part.head, rows))
        case Panels():
            yield f"**{escaped(part.caption)}**"
            yield "\n".join(f"- {escaped(cell.text)}" for row in part.rows for cell in row)
        case Answer():
            yield f"**{escaped(part.text)}**"
        case Facts():
            yield "\n".join(f"- {escaped(name)}: {escaped(text)}" for name, text in part.facts)
        case Code():
            yield f"{escaped(part.caption)}:"
            longest = max(map(len, re.findall("`+", "".join(part.lines))), default=0)
            fence = "`" * max(3, longest + 1)  # that no name in the lines ends
            yield "\n".join([f"{fence}sh", *part.lines, fence])
        case Fold():
            first = part.parts[0] if part.parts else None
            if not (isinstance(first, Table) and first.caption == part.title):
                yield f"### {escaped(part.title)}"
            for inner in part.parts:
                yield from _blocks(inner)
        case Key():  # every table has the numbers
            pass
