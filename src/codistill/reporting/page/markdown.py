"""The page as Markdown: its words and tables; the figures stand in the HTML."""

from collections.abc import Iterator, Sequence

from codistill.reporting.page.parts import (
    Code,
    Figures,
    Fold,
    Key,
    Panels,
    Paragraph,
    Part,
    Section,
    Table,
)


def render_markdown(title: str, lead: str, sections: Sequence[Section]) -> str:
    """What a page says, for people who read text and for repositories."""
    blocks = [f"# {_escaped(title)}", _escaped(lead)]
    for section in sections:
        blocks += [f"## {_escaped(section.title)}", _escaped(section.how)]
        blocks += [f"> {_escaped(line)}" for line in section.missing]
        for part in section.parts:
            blocks += _blocks(part)
    return "\n\n".join(blocks) + "\n"


def _blocks(part: Part) -> Iterator[str]:
    match part:
        case Paragraph():
            yield ("> " if part.note else "") + _escaped(part.text)
        case Table():
            yield f"**{_escaped(part.caption)}**"
            yield "\n".join(_lines(part))
            if part.below:
                yield _escaped(part.below)
        case Figures():
            for figure in part.figures:
                yield f"*Figure: {_escaped(figure.title)}.* {_escaped(figure.description)}"
        case Panels():
            rows = [[cell.text for cell in row] for row in part.rows]
            yield from _blocks(Table(part.caption, part.head, rows))
        case Code():
            yield f"{_escaped(part.caption)}:"
            yield "\n".join(["```sh", *part.lines, "```"])
        case Fold():
            first = part.parts[0] if part.parts else None
            if not (isinstance(first, Table) and first.caption == part.title):
                yield f"### {_escaped(part.title)}"
            for inner in part.parts:
                yield from _blocks(inner)
        case Key():  # the numbers stand in every table
            pass


def _lines(table: Table) -> Iterator[str]:
    for row in (table.head, ["---"] * len(table.head), *table.rows):
        yield "| " + " | ".join(cell if cell == "---" else _escaped(cell) for cell in row) + " |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = " ".join(text.split())
    for character in "\\`*_[]|":
        text = text.replace(character, "\\" + character)
    return text.replace("<", "&lt;").replace(">", "&gt;")
