"""Lines for the person at the terminal. Importing this file imports neither PyTorch nor rich."""

import contextlib
import logging
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_log = logging.getLogger("codistill")
_SHOWN = 5  # names in a line
_LETTERS = 100  # of a name; of a longer one, the beginning and the end are shown


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


def signed(number: float, digits: int) -> str:
    """A number with its sign; what is rounded to nothing has none."""
    text = f"{number:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def shorten(names: Sequence[str], shown: int = _SHOWN) -> str:
    """The first few names, and the number of the others."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def quoted(names: Iterable[str], shown: int = _SHOWN) -> str:
    """The first few names in quotes, control codes escaped, and the number of the others."""
    return shorten([f"'{printable(_cut(name))}'" for name in names], shown)


def _cut(name: str) -> str:
    half = _LETTERS // 2
    return name if len(name) <= _LETTERS else f"{name[:half]}...{name[-half:]}"


def option(name: str, value: object) -> str:
    """An option with its value, as a shell takes it: "--data.splits 'train=my photos'"."""
    return f"{name} {shlex.quote(str(value))}"


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun: "1 image", "2,000 images"; `several` is that of more than one."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
