"""The module of a network that returns the feature map its head reads, for captum."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codistill.errors import InputError
from codistill.networks.cutting.cuts import Tapped
from codistill.networks.network import Layout, Network, as_map
from codistill.networks.peers import Peers

Classify = Callable[[Tensor], Tensor]
"""Makes logits (B, C) of images (B, 3, H, W)."""


@dataclass(frozen=True)
class MapPlace:
    """The module that returns a feature map, and in which form; see `as_map`."""

    module: nn.Module
    layout: Layout
    reduction: int

    @contextmanager
    def passed_on(self, height: int, width: int) -> Iterator[nn.Module]:
        """A module through which the map passes as (B, D, h, w), as long as the context is open.

        Args:
            height: height of the images.
            width: width of the images.
        """
        layer = nn.Identity()

        def pass_on(module: nn.Module, given: Any, returned: Tensor) -> Tensor:
            x = layer(as_map(returned, self.layout, self.reduction, (height, width)))
            if self.layout == "NCHW":
                return x
            x = x.permute(0, 2, 3, 1)
            if self.layout == "NHWC":
                return x
            places = x.flatten(1, 2)
            return torch.cat([returned[:, : returned.shape[1] - places.shape[1]], places], dim=1)

        with self.module.register_forward_hook(pass_on):
            yield layer


def map_of_network(network: Network, images: Float[Tensor, "B 3 H W"]) -> MapPlace:
    """The last map that the logits of a network come from. The network is tried on an image.

    Raises:
        InputError: the network returns a map that its logits do not come from.
    """
    stage, layout, reduction = network.stages[-1], network.layouts[-1], network.reductions[-1]
    return _read(stage, layout, reduction, network, images)


def maps_of_peers(peers: Peers, images: Float[Tensor, "B 3 H W"]) -> list[MapPlace]:
    """The last map of each peer, each once: if all stages are shared, there is one."""
    found = {}
    for k, branch in enumerate(peers.branches):
        stage = [*peers.trunk, *branch][-1]

        def classify(x: Tensor, k: int = k) -> Tensor:
            return peers([x]).logits[k]

        layout, reduction = peers.layouts[k][-1], peers.reductions[k][-1]
        found[stage] = _read(stage, layout, reduction, classify, images)
    return list(found.values())


def _read(
    stage: nn.Module, layout: Layout, reduction: int, classify: Classify, images: Tensor
) -> MapPlace:
    last = _last(stage, layout, reduction)
    if last.layout != "tokens":
        return last
    # A class token may be all that the head reads. Then the other tokens after the last attention
    # mean nothing, and the map that counts is the one that this attention reads.
    tensors = _outputs(stage, last, classify, images[:1])
    height, width = (side // last.reduction for side in images.shape[2:])
    for module, gradient in reversed(list(tensors.items())):
        if gradient is not None and gradient[:, gradient.shape[1] - height * width :].any():
            return MapPlace(module, "tokens", last.reduction)
    return last


def _last(stage: nn.Module, layout: Layout, reduction: int) -> MapPlace:
    """The map that a stage states as its own."""
    if layout != "tapped":
        return MapPlace(stage, layout, reduction)
    for module in stage.modules():
        if isinstance(module, Tapped):
            inner = module.model.get_submodule(module.name)
            return MapPlace(inner, module.layout, module.reduction)
    raise InputError(
        "a network returns its feature map beside logits that do not come from it: there is no "
        "Grad-CAM of it"
    )


def _outputs(
    stage: nn.Module, last: MapPlace, classify: Classify, image: Float[Tensor, "1 3 H W"]
) -> dict[nn.Module, Tensor | None]:
    """The modules of a stage that return tokens like its last one, each once, in their order.

    Each has the gradient of the highest logit with respect to its tokens; None if there is none.
    """
    returned: dict[nn.Module, list[Any]] = {}
    with ExitStack() as hooks, torch.enable_grad():
        for module in stage.modules():
            hooks.enter_context(
                module.register_forward_hook(lambda m, _, x: returned.setdefault(m, []).append(x))
            )
        best = classify(image).max()
    shape = returned[last.module][-1].shape
    tokens = {
        module: found[0]
        for module, found in returned.items()
        if len(found) == 1 and isinstance(found[0], Tensor) and found[0].shape == shape
    }
    gradients = torch.autograd.grad(best, list(tokens.values()), allow_unused=True)
    return dict(zip(tokens, gradients, strict=True))
