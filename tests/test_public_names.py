"""The public names are there, are documented, and cost nothing to import."""

import subprocess
import sys

import pytest

import codistill
from codistill.methods import method_class
from codistill.names import METHODS


@pytest.mark.parametrize("name", codistill.__all__)
def test_a_public_name_can_be_imported_and_is_documented(name):
    thing = getattr(codistill, name)
    doc = thing.__doc__ or ""
    assert doc.strip()
    assert not doc.startswith(f"{name}(")  # what dataclasses and NamedTuples write by themselves


@pytest.mark.parametrize("name", codistill.__all__)
def test_a_public_name_is_imported_for_type_checkers_too(name):
    with open(codistill.__file__) as file:
        assert f" import {name} as {name}\n" in file.read()


def test_public_names_are_sorted():
    assert codistill.__all__ == sorted(codistill.__all__)


def test_dir_lists_the_public_names():
    assert set(dir(codistill)) == set(codistill.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'codistill' has no attribute 'nothing'"):
        codistill.nothing  # noqa: B018


@pytest.mark.parametrize("module", ["codistill", "codistill.names", "codistill.errors"])
def test_importing_does_not_import_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_method_is_public():
    classes = {path.partition(":")[2]: path for path in METHODS.values()}
    assert set(classes) <= set(codistill.__all__)
    for name, path in classes.items():
        assert getattr(codistill, name) is method_class(path)


def test_an_image_size_is_not_taken_for_another_argument():
    with pytest.raises(TypeError, match="positional argument"):
        codistill.build_network("resnet8", 10, (32, 32))
