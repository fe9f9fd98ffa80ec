"""A classifier cut into stages, so that peers can share the first ones and learn from maps."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from codistill.errors import InputError

Layout = Literal["NCHW", "NHWC", "tokens", "tapped"]
"""The form in which a stage returns its map: (B, D, H, W); (B, H, W, D); tokens (B, P + H W, D), of
which the first P stand for no place; or a pair of the map (B, D, H, W) and the logits."""


class Network(nn.Module):
    """An image classifier: stages that end in feature maps, then a head.

    `torch.export` and `torch.jit.trace` take it. `torch.jit.script` does not: it cannot read shapes
    in annotations. It takes the network in the `model.py` of `codistill export`.

    Args:
        stages: modules applied in turn; each maps an image or a feature map to a feature map
            (B, D, H, W), or to what `layouts` says.
        channels: D after each stage.
        reductions: side of the image / side of the feature map after each stage, such as
            (1, 2, 4). Says how maps of different networks fit together.
        num_classes: C.
        head: maps what the last stage returns to logits (B, C). Default: global average pooling
            and a linear layer.
        layouts: the form in which each stage returns its map. Default: "NCHW".
        names: for a network that was cut out of another module, the name that each of its weights
            and buffers has there.

    Attributes:
        architecture: the name that `build_network` built it by; empty if made otherwise.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        channels: Sequence[int],
        reductions: Sequence[int],
        num_classes: int,
        head: nn.Module | None = None,
        layouts: Sequence[Layout] | None = None,
        names: Mapping[str, str] | None = None,
    ):
        super().__init__()
        layouts = ["NCHW"] * len(stages) if layouts is None else layouts
        if not len(stages) == len(channels) == len(reductions) == len(layouts) > 0:
            raise InputError(
                "a network needs one entry of channels and of reductions per stage, and a stage: "
                f"got {len(stages)} stages, {len(channels)} channels, {len(reductions)} "
                f"reductions, {len(layouts)} layouts"
            )
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(channels)
        self.reductions = tuple(reductions)
        self.layouts = tuple(layouts)
        self.num_classes = num_classes
        self.head = head or nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes)
        )
        self.names = dict(names or {})
        self.architecture = ""

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        x = images
        for stage in self.stages:
            x = stage(x)
        return self.head(x)

    def clone(self) -> "Network":
        """The same network with weights of its own."""
        return copy.deepcopy(self)

    def original_state_dict(self) -> dict[str, Tensor]:
        """Weights and buffers under the names of the module that the network was cut out of."""
        return {self.names.get(name, name): x for name, x in self.state_dict().items()}

    def from_original(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict under those names, under the names of this network."""
        ours = {original: name for name, original in self.names.items()}
        return {ours.get(name, name): x for name, x in state.items()}


def as_map(
    x: Any, layout: Layout, reduction: int, image_size: tuple[int, int]
) -> Float[Tensor, "B D H W"]:
    """The output of a stage as a feature map: a view, which costs nothing.

    Args:
        x: the output of the stage.
        layout: the form in which it holds the map.
        reduction: side of the image / side of the map; used for tokens only.
        image_size: height and width of the image in pixels; used for tokens only.
    """
    if layout == "NCHW":
        return x
    if layout == "NHWC":
        return x.permute(0, 3, 1, 2)
    if layout == "tapped":
        return x[0]
    height, width = (side // reduction for side in image_size)
    places = x[:, x.shape[1] - height * width :]
    return places.unflatten(1, (height, width)).permute(0, 3, 1, 2)
