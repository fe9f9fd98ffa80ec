"""What a page is made of; `html.py` and `text.py` say how each part is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text; a note stands out."""

    text: str
    note: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text. Rows are as long as the head.

    Attributes:
        caption: what it shows, in a few words.
        head: of the columns.
        rows: the first `headers` cells of each say what the row is.
        below: what the reader has to know of the numbers.
        headers: how many columns say what a row is.
        shades: for each row, how dark each cell behind the headers stands, 0 to 1; none: white.
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
        title: what it shows, in a few words.
        uri: the image, as `drawing.image_of` makes it.
        description: the same for those who do not see it: axes, and what was found.
    """

    title: str
    uri: str
    description: str


@dataclass(frozen=True)
class Figures:
    """Figures beside one another where the page is wide enough."""

    figures: Sequence[Figure]


@dataclass(frozen=True)
class Panel:
    """A small photograph with a line of text.

    Attributes:
        uri: data: with the picture in it.
        alt: what it shows.
        text: below it.
    """

    uri: str
    alt: str
    text: str


@dataclass(frozen=True)
class Panels:
    """Photographs in rows and columns."""

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
    """Which number, colour, line and marker stands for which setting in the figures.

    Attributes:
        entries: number, a sample as a data: URI, and label.
    """

    entries: Sequence[tuple[int, str, str]]


@dataclass(frozen=True)
class Fold:
    """Parts that are shown when the reader asks for them."""

    title: str
    parts: Sequence["Part"]
    open: bool = False


Part = Paragraph | Table | Figures | Panels | Code | Key | Fold


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: a short word, unique on the page.
        title: its heading.
        how: how to read it, in one or two sentences.
        parts: in order; empty where there is nothing to show, which `missing` then explains.
        missing: what is not shown, and why.
    """

    name: str
    title: str
    how: str
    parts: Sequence[Part]
    missing: Sequence[str] = field(default=())
