"""The page as one HTML file with its figures and style in it."""

import re
from collections.abc import Sequence
from pathlib import Path

from codistill.importing import optional
from codistill.reporting.page.drawing import Style
from codistill.reporting.page.parts import Section, Table

_FOLDER = Path(__file__).parent


def render_html(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole page. The text of the parts is escaped."""
    jinja2 = optional("jinja2", "writing a page")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda part: type(part).__name__
    environment.filters["numeric"] = _numeric
    environment.filters["colour"] = _colour
    style = (_FOLDER / "style.css").read_text()
    template = environment.get_template("page.html")
    return template.render(title=title, lead=lead, sections=sections, style=style) + "\n"


def _numeric(table: Table) -> list[bool]:
    """Whether each column holds numbers, which are aligned to the right."""
    columns = [
        [c for c in column if c not in ("", "-")] for column in zip(*table.rows, strict=True)
    ]
    numbers = [bool(column) and all(map(_NUMBER.match, column)) for column in columns]
    return [is_number and name != "#" for is_number, name in zip(numbers, table.head, strict=False)]


def _colour(number: str) -> str:
    """The colour of the setting with this number."""
    colour = Style.number(int(number) - 1).colour
    return colour if colour != "#000000" else "currentColor"


_NUMBER = re.compile(r"[<+-]?\.?\d")
