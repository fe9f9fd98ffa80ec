"""Lines for the person at the terminal. Importing this file imports neither PyTorch nor rich."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_log = logging.getLogger("codistill")
_SHOWN = 5  # names in a line


def printable(text: str) -> str:
    """The text with its tabs, ends of lines, control codes and bytes that are no UTF-8 escaped."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def say(console: "Console", text: str, style: str | None = None) -> None:
    """Prints a text as it is: no markup in it, no colours for numbers, lines not broken."""
    text = "\n".join(map(printable, text.split("\n")))
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def note(text: str, console: "Console | None" = None) -> None:
    """Warns of something that stops nothing: in yellow on a console, or else through `logging`."""
    line = f"codistill: note: {printable(text)}"
    if console is None:
        _log.warning("%s", line)
    else:
        say(console, line, "yellow")


@contextlib.contextmanager
def equal_notes_once() -> Iterator[None]:
    """Within it, notes of the same text are logged once: peers of one kind cause the same."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in seen
        seen.add(text)
        return new

    _log.addFilter(is_new)
    try:
        yield
    finally:
        _log.removeFilter(is_new)


def shorten(names: Sequence[str]) -> str:
    """The first few names, and the number of the others."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
