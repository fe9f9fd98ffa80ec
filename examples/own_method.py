"""A method of your own in one file, compared with two built-in ones on scikit-learn's digits.

Run it: python examples/own_method.py
With the command: PYTHONPATH=examples codistill train --method own_method:Relay --network resnet8
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codistill import Method, Outputs, Peers, build_network, fit, load_data
from codistill.methods import DML, Independent
from codistill.methods.losses import ce_loss, kd_loss, sigmoid_ramp_up


class Relay(Method):
    """A judge of all peers' embeddings learns from labels and teaches every peer.

    Args:
        peers: two or more networks.
        temperature: T of the divergence.
        ramp_up: epochs until distillation has its full weight.
    """

    def __init__(self, peers: Peers, temperature: float = 3.0, ramp_up: int = 80):
        super().__init__(peers)
        self.judge = nn.Linear(sum(d[-1] for d in peers.channels), peers.num_classes)
        self.temperature = temperature
        self.ramp_up = ramp_up

    def forward(self, views: Sequence[Tensor]) -> Outputs:
        out = self.peers(views)
        out.extra["judge"] = self.judge(torch.cat(out.embeddings, dim=1).detach())
        return out

    def losses(self, out: Outputs, labels: Tensor, epoch: int) -> dict[str, Tensor]:
        z, z_j = out.logits, out.extra["judge"]  # (K, B, C), (B, C)
        w = sigmoid_ramp_up(epoch, self.ramp_up)
        return {
            "ce": ce_loss(z, labels) + ce_loss(z_j, labels),
            "kd": w * kd_loss(z, z_j.detach(), self.temperature),
        }


def main() -> None:
    data = load_data("digits", batch_size=64)
    for build in (Independent, DML, lambda peers: Relay(peers, ramp_up=1)):
        torch.manual_seed(0)
        method = build(Peers([build_network("resnet8", num_classes=10) for _ in range(2)]))
        last = fit(method, data.train, {"test": data.test}, epochs=3)[-1]
        print(type(method).__name__, {k: round(v, 1) for k, v in last.items() if "top1" in k})


if __name__ == "__main__":
    main()
