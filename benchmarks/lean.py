"""The shortest fast loop for FFL that we can write; any time above it is our overhead.

It is written for one batch layout, one method, two stages of trunk: no `Batch`, no `Outputs`, no
checks, and no log except the sum of the losses at the end of an epoch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from codistill.data.batches.in_memory import crop_and_flip
from codistill.data.dataset import Split
from codistill.data.normalisation import Normalisation
from codistill.methods import FFL
from codistill.methods.losses import kd_loss
from ours import SGD


class LeanFFL:
    """FFL's loop over a split.

    Args:
        method: the method to train, in channels_last layout, with distillation at full weight.
        split: the images.
        batch_size: images per batch, B.
        bf16: whether the forward pass runs in bfloat16.
    """

    def __init__(self, method: FFL, split: Split, batch_size: int, bf16: bool):
        self.method, self.split, self.batch_size, self.bf16 = (
            method.train(),
            split,
            batch_size,
            bf16,
        )
        self.normalise = Normalisation.of(split)
        self.optimizer = method.optimizers(SGD)["main"]

    def train_epoch(self) -> float:
        """Trains on every image once; returns the mean loss."""
        total = torch.zeros(())
        order = torch.randperm(len(self.split)).split(self.batch_size)
        for index in order:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss = self.loss(self.images(index), self.split.labels[index])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        return float(total / len(order))

    def images(self, index: Tensor) -> Tensor:
        top, left = torch.randint(9, (2, len(index)))
        flips = torch.rand(len(index)) < 0.5
        cut = crop_and_flip(self.split.images, index, top, left, flips, 4, "reflect")
        return self.normalise(cut)

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        peers, T = self.method.peers, self.method.temperature
        for stage in peers.trunk:
            x = stage(x)
        maps = [branch[0](x) for branch in peers.branches]
        z = torch.stack([head(m) for head, m in zip(peers.heads, maps, strict=True)])
        z_f = self.method.fusion(maps)
        every = torch.cat([*z, z_f]).float()
        ce = (len(z) + 1) * F.cross_entropy(every, labels.repeat(len(z) + 1))
        return ce + kd_loss(z_f, z.mean(dim=0).detach(), T) + kd_loss(z, z_f.detach(), T)
