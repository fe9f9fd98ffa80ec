"""What could not be measured, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Missing:
    """Stands in the place of a part of an `Analysis` that there is none of.

    Attributes:
        reason: one line that can be shown, such as "weights.safetensors is not in runs/first".
    """

    reason: str
