"""The edits that `make mutate` tries: they apply, they are valid Python, and none is left out."""

import ast
from collections import Counter
from pathlib import Path

import pytest
from mutations import EDITS, Edit

from codistill.names import METHODS

SOURCE = Path(__file__).parents[1] / "src" / "codistill"


@pytest.mark.parametrize("edit", EDITS, ids=[f"{e.method}: {e.what}" for e in EDITS])
def test_an_edit_applies(edit: Edit) -> None:
    text = (SOURCE / edit.file).read_text()
    assert text.count(edit.old) == 1
    ast.parse(text.replace(edit.old, edit.new))


def test_every_method_is_edited_four_times_or_more() -> None:
    counts = Counter(edit.method for edit in EDITS)
    assert min(counts[method] for method in METHODS) >= 4
    others = counts.keys() - METHODS.keys()
    assert all((Path(__file__).parent / file).is_file() for file in others)
