"""SwitOKD: small networks learn beside a larger one, which pauses when it runs ahead of them.

Qian, Wang, Yin, Hong, Wang: Switchable Online Knowledge Distillation.
ECCV 2022. arXiv:2209.04996. We follow the authors' code, hfutqian/SwitOKD. The last peer is the
larger network, the "teacher". The others are its students, of which the best is kept.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from codistill.data.batch import Labels
from codistill.errors import require_positive
from codistill.methods.losses import as_distributions, at_least_float32, ce_loss, kd_loss
from codistill.methods.method import Method, require_peers
from codistill.networks.peers import Kept, Outputs, Peers


class SwitOKD(Method):
    """Peers learn from each other; in some batches the larger one pauses.

    Let p be softmax(z / T), y the labels, and |.| the sum over classes of absolute differences, as
    mean over images. d_s = |p_s - y| and d_t = |p_t - y| are the distances of a student and of the
    larger network from the labels. The larger one does not learn from a student in batches where
    |p_s - p_t| > d_s - exp(-d_t / (d_t + d_s)) d_t and d_t < d_s.

    A pause is a loss with weight 0, computed on the device, so the loop need not wait for it. The
    backward pass that a pause could save is still computed. The optimizer goes on with momentum
    and weight decay.

    Args:
        peers: two or more networks, the last of them the larger one.
        temperature: T of the divergences and of the distances.
        standardise: whether logits are standardised before they are softened.
    """

    def __init__(self, peers: Peers, temperature: float = 1.0, standardise: bool = False):
        require_peers(peers, "SwitOKD trains a network beside a larger one")
        require_positive(temperature=temperature)
        super().__init__(peers)
        self.temperature = temperature
        self.standardise = standardise

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, T = out.logits, self.temperature
        students, larger = z[:-1], z[-1]
        learns = self.learns(z, labels)
        back = [kd_loss(larger, z_s.detach(), T, self.standardise) for z_s in students]
        kd = kd_loss(students[:, None], z.detach()[None], T, self.standardise)  # of itself: zero
        return {
            "ce": ce_loss(students, labels) + learns.amax() * ce_loss(larger, labels),
            "kd": kd,
            "kd_back": (learns * torch.stack(back)).sum(),
        }

    @torch.no_grad()
    def learns(self, z: Float[Tensor, "K B C"], labels: Labels) -> Float[Tensor, "K-1"]:
        """1 where the larger network learns from a student in this batch, 0 where it pauses."""
        p = (at_least_float32(z) / self.temperature).softmax(dim=-1)
        d = _distance(p, as_distributions(labels, p))
        d_s, d_t = d[:-1], d[-1]
        threshold = d_s - torch.exp(-d_t / (d_t + d_s)) * d_t
        pauses = (_distance(p[:-1], p[-1]) > threshold) & (d_t < d_s)
        return (~pauses).to(p.dtype)

    def students(self) -> dict[str, Kept]:
        return {f"peer{k}": Kept(self.peers, k) for k in range(len(self.peers) - 1)}


def _distance(p: Float[Tensor, "K B C"], q: Float[Tensor, "B C"]) -> Float[Tensor, "K"]:
    """The sum over classes of absolute differences, mean over images."""
    return (p - q).abs().sum(dim=-1).mean(dim=-1)
