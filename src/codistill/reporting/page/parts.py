"""The parts of a page; `html.py` and `markdown.py` write them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text; a note stands out."""

    text: str
    note: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text. Rows are as long as the head.

    Attributes:
        caption: its contents in a few words.
        head: names of the columns.
        rows: cells of each row; the first `headers` of them name the row.
        below: explanation of the numbers, below the table.
        headers: number of columns that name a row.
        shades: darkness of each cell behind the headers, row by row, 0 to 1; none: all white.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    below: str = ""
    headers: int = 1
    shades: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        title: its contents in a few words.
        uri: the image, as `drawing.image_of` makes it.
        description: text for readers who do not see it: axes and values.
    """

    title: str
    uri: str
    description: str


@dataclass(frozen=True)
class Figures:
    """Figures beside one another where the page is wide enough."""

    figures: Sequence[Figure]


@dataclass(frozen=True)
class Beside:
    """Figures with the table of their numbers, beside each other where the page is wide enough."""

    figures: Sequence[Figure]
    table: Table


@dataclass(frozen=True)
class Panel:
    """A small photograph with a line of text.

    Attributes:
        uri: the picture as a data: URI.
        alt: text for readers who do not see it.
        text: line below it.
        edge: "right" or "wrong" for a coloured edge.
        link: address of the photograph's own file.
    """

    uri: str
    alt: str
    text: str
    edge: Literal["", "right", "wrong"] = ""
    link: str = ""


@dataclass(frozen=True)
class Panels:
    """Photographs in rows and columns.

    Attributes:
        caption: their contents in a few words.
        head: names of the columns; none: the photographs flow, as many in a row as there is room.
        rows: photographs of each row.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Panel]]


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    caption: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Key:
    """The number, colour, line and marker of each setting in the figures.

    Attributes:
        entries: number, a sample as a data: URI, and label.
    """

    entries: Sequence[tuple[int, str, str]]


@dataclass(frozen=True)
class Answer:
    """The sentence that answers the page's question.

    Attributes:
        text: the sentence.
        verdict: "helped" or "hurt"; "open" if neither is shown.
    """

    text: str
    verdict: Literal["helped", "hurt", "open"]


@dataclass(frozen=True)
class Facts:
    """Facts, each with its name."""

    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Fold:
    """Parts that the reader can unfold."""

    title: str
    parts: Sequence["Part"]


Part = Paragraph | Table | Figures | Beside | Panels | Code | Key | Answer | Facts | Fold


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: a short word, unique on the page.
        title: its heading.
        how: a guide to reading it.
        parts: its parts in order; empty if there is nothing to show, which `missing` then explains.
        missing: a line for each thing that is not shown, with the reason.
    """

    name: str
    title: str
    how: str
    parts: Sequence[Part]
    missing: Sequence[str] = field(default=())
