"""YAML as people write it: 1e-4 is a number, and a key given twice is an error."""

import re
from pathlib import Path
from typing import Any

import yaml

from codistill.files import read_text, reading, require_small


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.YAMLError(f"{twice[0]!r} is given twice{node.start_mark}")
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts quotes around a text that `_Loader` would take for a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"),
        list("-+0123456789"),
    )


def read_yaml(file: Path, sealed: bool = True) -> Any:
    """The content of a YAML file.

    Args:
        file: the file.
        sealed: whether it has to be as codistill wrote it, if codistill did.

    Raises:
        InputError: the file is absent, is no YAML or is damaged.
    """
    text = read_text(file, "YAML", sealed)
    with reading(file, "YAML"):
        try:
            content = parse_yaml(text)
        except yaml.YAMLError as error:  # which has the line and the column in lines of its own
            raise ValueError(" ".join(str(error).split())) from error
        require_small(content)
    return content


def parse_yaml(text: str) -> Any:
    """The content of a text in YAML; raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def to_yaml(tree: dict[str, Any]) -> str:
    """The text that `read_yaml` reads as this tree."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)
