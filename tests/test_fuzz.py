"""Files that are damaged or made up give what was written, or one clear line; never a traceback.

What codistill wrote itself never gives other values either. A file of the user has no seal: a bit
that changes one number there cannot be seen. FUZZ_EXAMPLES=2000 tries more than a few.
"""

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codistill.comparing.comparison import read_comparison
from codistill.data.readers.index import Index, kept_index
from codistill.errors import InputError, MissingExtraError
from codistill.networks.student import read_student
from codistill.runs.finished import load_result
from codistill.runs.folder import read_config
from codistill.runs.manifest import Manifest
from codistill.seals import NAME
from codistill.settings.arguments import parse_config
from codistill.tensor_files import read_state, read_weights

REFUSALS = (InputError, MissingExtraError)
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))
FEW = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 100,  # the same every time, unless one looks for more
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
INDEX = Index(*np.arange(12).reshape(4, 3), ["a", "b", "c"], ["all"], [3], ["x"], "column")
RECIPE = "epochs: 3\nlr: 0.1\nmethod: {name: dml, temperature: 2}\ndata: {name: digits, pad: 1}\n"
COMPARISON = """settings: {data: digits, epochs: 1}
networks: [resnet8]
seeds: [0, 1]
methods:
  dml: {temperature: 2}
published:
  dml: {value: 1, source: x, differs: y}
note: a note
"""


@pytest.fixture(scope="module")
def folder(digits_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without checkpoints, and beside its files some of the user's."""
    run = Path(shutil.copytree(digits_runs[2], tmp_path_factory.mktemp("fuzz") / "run"))
    shutil.move(max(run.glob("checkpoints/*.pt")), run / "state.pt")
    shutil.rmtree(run / "checkpoints")
    (run / "recipe.yaml").write_text(RECIPE)
    (run / "comparison.yaml").write_text(COMPARISON)
    kept_index(run / "index.npz", lambda: INDEX)  # is read from now on
    return run


def settings_of(recipe: Path) -> Any:
    return parse_config(["--config", str(recipe)], "codistill train")


OURS: dict[str, Callable[[Path], Any]] = {
    "config.yaml": lambda file: read_config(file.parent),
    "manifest.json": lambda file: Manifest.read(file.parent),
    "history.jsonl": lambda file: load_result(file.parent),
    "result.json": lambda file: load_result(file.parent),
    "student.safetensors": lambda file: [
        str(x) for x in (read_student(file)[1], read_weights(file))
    ],
    "state.pt": lambda file: str(read_state(file)),
    "index.npz": lambda file: repr(kept_index(file, lambda: INDEX)),
}
USERS: dict[str, Callable[[Path], Any]] = {
    "recipe.yaml": settings_of,
    "comparison.yaml": read_comparison,
}
READERS = OURS | USERS


def damages() -> Iterator[st.SearchStrategy[Callable[[bytes], bytes]]]:
    """Bits that change, ends that are cut off, blocks of zeros, pieces that come twice."""
    share = st.floats(0, 1, exclude_max=True)

    def at(content: bytes, place: float) -> int:
        return int(place * len(content))

    def flip(place: float, bit: int) -> Callable[[bytes], bytes]:
        def damage(content: bytes) -> bytes:
            i = at(content, place)
            return content[:i] + bytes([content[i] ^ (1 << bit)]) + content[i + 1 :]

        return damage

    def zeros(place: float, size: int) -> Callable[[bytes], bytes]:
        def damage(content: bytes) -> bytes:
            i = at(content, place)
            return content[:i] + bytes(min(size, len(content) - i)) + content[i + size :]

        return damage

    def twice(place: float, size: int) -> Callable[[bytes], bytes]:
        def damage(content: bytes) -> bytes:
            i = at(content, place)
            return content[: i + size] + content[i:]

        return damage

    yield st.builds(flip, share, st.integers(0, 7))
    yield st.builds(lambda place: lambda content: content[: at(content, place)], share)
    yield st.builds(zeros, share, st.sampled_from([1, 64, 512]))
    yield st.builds(twice, share, st.integers(1, 200))


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
@given(damage=st.one_of(*damages()))
@FEW
def test_damage_is_refused_or_changes_nothing(
    name: str, damage: Callable[[bytes], bytes], folder: Path
) -> None:
    file, read = folder / name, READERS[name]
    whole, expected = file.read_bytes(), _whole(name, folder)
    file.write_bytes(damage(whole))
    try:
        found = read(file)
    except REFUSALS as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert name in USERS or found == expected
    finally:
        file.write_bytes(whole)


@functools.cache
def _whole(name: str, folder: Path) -> Any:
    return READERS[name](folder / name)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["a\0b", "~nobody-of-this-name/x", "-", ",", "1e-4", 10**400, "x" * 5000]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in pairs:
        found.append((*above, key))
        if isinstance(value, dict | list):
            found += places(value, found[-1])
    return found


TREES = {
    "config.yaml": yaml.safe_load,
    "recipe.yaml": yaml.safe_load,
    "comparison.yaml": yaml.safe_load,
    "manifest.json": json.loads,
    "result.json": json.loads,
}


@functools.cache
def _tree(name: str, text: str) -> str:
    """The content as JSON, without the seal, as the owner of the file may delete it."""
    tree = TREES[name](text)
    tree.pop(NAME, None)
    return json.dumps(tree)


@pytest.mark.long
@pytest.mark.parametrize("name", TREES)
@given(data=st.data())
@FEW
def test_any_value_in_any_place_is_taken_or_refused(
    name: str, data: st.DataObject, folder: Path
) -> None:
    file = folder / name
    whole = file.read_text()
    tree = json.loads(_tree(name, whole))
    *above, last = data.draw(st.sampled_from(places(tree)))
    inner = tree
    for key in above:
        inner = inner[key]
    value = data.draw(VALUES)
    if data.draw(st.booleans()):
        del inner[last]
    else:
        inner[last] = value
    text = json.dumps(tree) if name.endswith("json") else yaml.safe_dump(tree)
    file.write_text(text)
    try:
        READERS[name](file)
    except REFUSALS as error:
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        file.write_text(whole)
