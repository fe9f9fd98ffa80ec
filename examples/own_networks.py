"""Networks of your own, of different width and depth, trained together by FFL.

Run it: python examples/own_networks.py
"""

import torch
from torch import nn

from codistill import Network, Peers, build_network, epochs, evaluate, load_data
from codistill.methods import FFL


def small(num_classes: int) -> Network:
    """Two stages that end in feature maps. The head (average pooling, linear layer) is added."""

    def stage(d_in: int, d_out: int) -> nn.Module:
        conv = nn.Conv2d(d_in, d_out, 3, stride=2, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(d_out), nn.ReLU())

    return Network([stage(3, 12), stage(12, 24)], (12, 24), (2, 4), num_classes)


def main() -> None:
    torch.manual_seed(0)
    data = load_data("digits", batch_size=64)
    method = FFL(Peers([small(10), build_network("resnet8", num_classes=10)]), ramp_up=1)
    for record in epochs(method, data.train, {"test": data.test}, epochs=3):
        print({k: round(v, 1) for k, v in record.items() if "top1" in k})
    print(evaluate(method, data.test)["top1/fused"])


if __name__ == "__main__":
    main()
