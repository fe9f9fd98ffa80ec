"""How the weights of convolutional networks start."""

from torch import nn


def initialise_convolutions(module: nn.Module) -> None:
    """Draws convolutions from N(0, sqrt(2 / (k*k*out_channels))); the rest keeps PyTorch's start.

    As FFL's authors' code does. He et al., arXiv:1502.01852, with fan-out. Out channels are counted
    whole for depthwise convolutions too, as in that code.
    """
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            fan_out = m.kernel_size[0] * m.kernel_size[1] * m.out_channels
            nn.init.normal_(m.weight, std=(2.0 / fan_out) ** 0.5)
