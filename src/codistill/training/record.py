"""The record of an epoch. This file imports nothing: reading finished runs needs no PyTorch."""

Record = dict[str, int | float]
"""The numbers of a finished epoch by name; see `fit`."""
