"""What is known of an epoch. Imports nothing, so that reading finished runs needs no PyTorch."""

Record = dict[str, int | float]
"""What is known of an epoch when it is over, by name; see `fit`."""
