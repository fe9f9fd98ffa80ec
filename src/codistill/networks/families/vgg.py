"""VGG with batch normalisation for 32x32 images: five stages of 3x3 convolutions, one linear layer.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015.
arXiv:1409.1556, configurations D and E. The variant is what is usual on CIFAR: batch normalisation,
for which the convolutions lose their bias, and the mean of the last map and one linear layer in
place of the fifth pooling and three linear layers, which would hold most of the weights.
"""

from torch import nn

from codistill.errors import InputError
from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.network import Network

_LAYERS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(depth: int, num_classes: int) -> Network:
    """VGG-16 or VGG-19."""
    if depth not in _LAYERS:
        raise InputError(f"VGG has 16 or 19 layers, not {depth}")
    n1, n2, n3, n4, n5 = _LAYERS[depth]
    network = Network(
        [
            nn.Sequential(*_layers(3, 64, n1)),
            nn.Sequential(nn.MaxPool2d(2), *_layers(64, 128, n2)),
            nn.Sequential(nn.MaxPool2d(2), *_layers(128, 256, n3)),
            nn.Sequential(nn.MaxPool2d(2), *_layers(256, 512, n4)),
            nn.Sequential(nn.MaxPool2d(2), *_layers(512, 512, n5)),
        ],
        channels=(64, 128, 256, 512, 512),
        reductions=(1, 2, 4, 8, 16),
        num_classes=num_classes,
    )
    initialise_convolutions(network)
    return network


def _layers(d_in: int, d_out: int, n: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for d in (d_in, *[d_out] * (n - 1)):
        conv = nn.Conv2d(d, d_out, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(d_out), nn.ReLU(inplace=True)]
    return layers
