"""Layers in a row, of which batch normalisation and the ReLU after it may be one operation."""

from torch import Tensor, nn

from codistill.kernels import batch_norm_relu


class Layers(nn.Sequential):
    """`nn.Sequential`, with a faster way through a `BatchNorm2d` followed by a `ReLU`.

    Weights have the same names, and every layer is called as there where kernels are not used.
    """

    def forward(self, x: Tensor) -> Tensor:
        layers = [*self]
        i = 0
        while i < len(layers):
            kinds = [type(layer) for layer in layers[i : i + 2]]
            if kinds == [nn.BatchNorm2d, nn.ReLU]:
                x = batch_norm_relu(layers[i], layers[i + 1], x)
                i += 2
            else:
                x = layers[i](x)
                i += 1
        return x
