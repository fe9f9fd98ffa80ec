"""The edits that `make mutate` tries: they apply, they are valid Python, and none is left out."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
from mutate import EDITS, Edit, edits_of

from codistill.names import METHODS

SOURCE = Path(__file__).parents[1] / "src" / "codistill"


@pytest.mark.parametrize("edit", EDITS, ids=[f"{e.method}: {e.what}" for e in EDITS])
def test_an_edit_applies(edit: Edit) -> None:
    text = (SOURCE / edit.file).read_text()
    assert text.count(edit.old) == 1
    if edit.file.endswith(".py"):
        ast.parse(text.replace(edit.old, edit.new))


def test_every_method_is_edited_four_times_or_more() -> None:
    counts = Counter(edit.method for edit in EDITS)
    assert min(counts[method] for method in METHODS) >= 4
    others = counts.keys() - METHODS.keys()
    assert all((Path(__file__).parent / file).is_file() for file in others)


@pytest.mark.parametrize("stray", ["+ what by, with nothing replaced", "no mark", "# no edit"])
def test_a_line_of_no_edit_is_refused(tmp_path, monkeypatch, stray: str) -> None:
    monkeypatch.setattr("mutate.MUTATIONS", tmp_path)
    listed = tmp_path / "ours.txt"
    edit = "== ours.py\n# it is one more\n- 1\n- 2\n+ 2\n# it is gone\n- 3\n"
    listed.write_text(edit)
    more, gone = edits_of(listed)
    assert more == Edit("ours", "it is one more", "ours.py", "1\n2", "2")
    assert gone == Edit("ours", "it is gone", "ours.py", "3", "")
    listed.write_text(f"{edit}\n{stray}\n")
    with pytest.raises(ValueError, match=f"{listed}: .*{re.escape(stray)}"):
        list(edits_of(listed))
