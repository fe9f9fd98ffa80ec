"""A classifier cut into stages, so that peers can share the first ones and learn from maps."""

import copy
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from codistill.errors import InputError


class Network(nn.Module):
    """An image classifier: stages that end in feature maps, then a head.

    Args:
        stages: modules applied in turn; each maps an image or a feature map to a feature map
            (B, D, H, W).
        channels: D after each stage.
        reductions: side of the image / side of the feature map after each stage, such as
            (1, 2, 4). Says how maps of different networks fit together.
        num_classes: C.
        head: maps the last feature map to logits (B, C). Default: global average pooling and a
            linear layer.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        channels: Sequence[int],
        reductions: Sequence[int],
        num_classes: int,
        head: nn.Module | None = None,
    ):
        super().__init__()
        if not len(stages) == len(channels) == len(reductions) > 0:
            raise InputError(
                "a network needs one entry of channels and of reductions per stage, and a stage: "
                f"got {len(stages)} stages, {len(channels)} channels, {len(reductions)} reductions"
            )
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(channels)
        self.reductions = tuple(reductions)
        self.num_classes = num_classes
        self.head = head or nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes)
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        x = images
        for stage in self.stages:
            x = stage(x)
        return self.head(x)

    def clone(self) -> "Network":
        """The same network with weights of its own."""
        return copy.deepcopy(self)
