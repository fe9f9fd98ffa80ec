"""The last layer of a network: found, put into another order of classes, drawn again."""

from collections.abc import Sequence

import torch
from torch import nn

from codistill.networks.network import Network


def classifiers(network: Network) -> list[nn.Linear | nn.Conv2d]:
    """The layers with one output per class: those of the head, else those of the network."""
    kinds = nn.Linear | nn.Conv2d
    for part in (network.head, network):
        layers = [m for m in part.modules() if isinstance(m, kinds)]
        layers = [m for m in layers if len(m.weight) == network.num_classes]
        if layers:
            return layers
    return []


def reorder_classes(
    network: Network, order: Sequence[int], image_size: tuple[int, int] = (32, 32)
) -> bool:
    """Puts the classes of a network into another order: logit i becomes logit order[i] of before.

    Args:
        network: the network; its last layers are changed.
        order: the present place of each class.
        image_size: height and width of the images in pixels that it is tried on.

    Returns:
        whether the logits of random images are those of before in the new order.
    """
    images = torch.randn(2, 3, *image_size, generator=torch.Generator().manual_seed(0))
    training = network.training
    with torch.no_grad():
        before = network.eval()(images)[:, order]
        for layer in classifiers(network):
            for x in layer.parameters():
                x.copy_(x[order])
        after = network(images)
    network.train(training)
    return torch.allclose(before, after, rtol=1e-3, atol=1e-4)


def renew_large_classifiers(network: Network) -> None:
    """Draws a last layer again, as PyTorch does, that a library drew twice as large or more.

    timm and torchvision draw those of EfficientNets, and timm those of MobileNets, from up to 1
    over the root of the number of classes. Before few classes and on published weights that is 10
    to 30 times as large as nn.Linear's own: the first loss is above 20, and epochs are lost. Call
    this where a last layer was drawn for published weights, and not where it was loaded.
    """
    for layer in classifiers(network):
        usual = (3 * layer.weight[0].numel()) ** -0.5  # of PyTorch's uniform distribution
        if layer.weight.std() > 2 * usual:
            layer.reset_parameters()


def renew_equal_classifiers(networks: Sequence[Network]) -> None:
    """Draws the last layer of a network again if an earlier one has the same weights.

    Peers that begin equal and see the same images stay equal, and have nothing to teach.
    """
    for k, network in enumerate(networks):
        own = network.original_state_dict()
        for other in (n.original_state_dict() for n in networks[:k]):
            if own.keys() == other.keys() and all(torch.equal(own[n], other[n]) for n in own):
                for layer in classifiers(network):
                    layer.reset_parameters()
                break
