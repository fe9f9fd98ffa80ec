"""The columns of Arrow's tables, which parquet files and the library `datasets` have."""

import json
from typing import Any


def arrow_kind(kind: Any) -> str:
    """What an Arrow type may hold for us: "images", "text", "numbers" or ""."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        return "images" if kind.get_field_index("bytes") >= 0 else ""
    if is_binary(kind):
        return "images"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    numeric = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    return "numbers" if any(is_one(kind) for is_one in numeric) else ""


def is_binary(kind: Any) -> bool:
    from pyarrow import types

    kinds = (
        types.is_binary,
        types.is_large_binary,
        types.is_binary_view,
        types.is_fixed_size_binary,
    )
    return any(is_one(kind) for is_one in kinds)


def class_names(schema: Any, label: str) -> list[str] | None:
    """The class names that the `datasets` library writes into a schema, if it did."""
    try:
        stored = json.loads((schema.metadata or {})[b"huggingface"])
        names = stored["info"]["features"][label]["names"]
        return list(map(str, names))
    except (KeyError, TypeError, ValueError):
        return None
