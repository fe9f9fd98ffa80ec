"""MCL: peers also learn which images are alike, within each network and between two.

Yang, An, Cai, Xu: Mutual Contrastive Learning for Visual Representation Learning.
AAAI 2022. arXiv:2104.12565. We follow the authors' code, winycg/MCL.

    peers -> h_k -> embeddings v_k of length 1 -> similarities v_i v_j^T / tau, of all pairs (i, j)
                      i = j: "VCL", vanilla; i != j: "ICL", interactive; hard by labels, soft by KL
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from codistill.data.batch import Labels
from codistill.errors import require_not_negative, require_positive
from codistill.methods.losses import (
    as_distributions,
    at_least_float32,
    ce_loss,
    full_precision,
    kd_loss,
)
from codistill.methods.method import Method, require_peers
from codistill.networks.peers import Outputs, Peers


class MCL(Method):
    """Images of one class are drawn together, within each network and between each two networks.

    The hard terms and their means leave out an image that has no other of its class in the batch.
    The authors' batches have no such image; `data.class_group: 2` makes batches like these.

    Args:
        peers: two or more networks.
        temperature: T of the divergences.
        contrast_temperature: tau, the divisor of the similarities.
        width: number of features of the embeddings.
        vcl_weight: weight of the contrast within a network (alpha).
        icl_weight: weight of the contrast between two networks (beta).
        soft_vcl_weight: weight of learning the similarities within another network (gamma).
        soft_icl_weight: weight of learning the similarities between two networks (lambda).
        logits: whether the ensemble's logits teach too: two peers both learn from them, of more
            peers only the last does.
        standardise: whether logits are standardised before they are softened.
    """

    def __init__(
        self,
        peers: Peers,
        temperature: float = 3.0,
        contrast_temperature: float = 0.1,
        width: int = 128,
        vcl_weight: float = 0.1,
        icl_weight: float = 0.1,
        soft_vcl_weight: float = 1.0,
        soft_icl_weight: float = 1.0,
        logits: bool = False,
        standardise: bool = False,
    ):
        require_peers(peers, "MCL contrasts the embeddings of peers")
        require_positive(
            temperature=temperature, contrast_temperature=contrast_temperature, width=width
        )
        require_not_negative(
            vcl_weight=vcl_weight,
            icl_weight=icl_weight,
            soft_vcl_weight=soft_vcl_weight,
            soft_icl_weight=soft_icl_weight,
        )
        super().__init__(peers)
        self.embed = nn.ModuleList(
            nn.Sequential(nn.Linear(d[-1], width), nn.ReLU(inplace=True), nn.Linear(width, width))
            for d in peers.channels
        )
        self.temperature = temperature
        self.contrast_temperature = contrast_temperature
        self.vcl_weight = vcl_weight
        self.icl_weight = icl_weight
        self.soft_vcl_weight = soft_vcl_weight
        self.soft_icl_weight = soft_icl_weight
        self.logits = logits
        self.standardise = standardise

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, T = out.logits, self.temperature
        v = torch.stack([f(h) for f, h in zip(self.embed, out.embeddings, strict=True)])
        v = F.normalize(at_least_float32(v), dim=-1)  # (K, B, d)
        with full_precision(v):
            s = torch.einsum("ibd,jcd->ijbc", v, v) / self.contrast_temperature
            hard = contrast(s, as_distributions(labels, at_least_float32(z)))  # (K, K)
        within = s.diagonal().movedim(-1, 0)  # (K, B, B)
        vcl = hard.trace()
        # In the soft terms, what a network learns from itself is zero.
        soft_vcl = kd_loss(within[:, None], within.detach()[None], T)
        soft_icl = kd_loss(s, s.detach().transpose(0, 1), T)
        terms = {
            "ce": ce_loss(z, labels),
            "vcl": self.vcl_weight * vcl,
            "icl": self.icl_weight * (hard.sum() - vcl),
            "soft_vcl": self.soft_vcl_weight * soft_vcl,
            "soft_icl": self.soft_icl_weight * soft_icl,
        }
        if self.logits:
            learners = z if len(z) == 2 else z[-1:]
            ensemble = out.extra["ensemble"].detach()
            terms["kd"] = kd_loss(learners, ensemble[None], T, self.standardise)
        return terms


def contrast(s: Float[Tensor, "K K B B"], y: Float[Tensor, "B C"]) -> Float[Tensor, "K K"]:
    """Supervised contrastive losses of similarities s_ij between the images of two networks.

    For image b: minus the mean, over the others of its class, of the log-softmax of its
    similarities to all others. The result is the mean over images that have such others. If labels
    are distributions, two images are of one class to the degree <y_b, y_c>.
    """
    itself = torch.eye(len(y), dtype=torch.bool, device=s.device)
    alike = (y @ y.mT).masked_fill(itself, 0.0)
    log_p = s - s.masked_fill(itself, -math.inf).logsumexp(dim=-1, keepdim=True)
    total = alike.sum(dim=-1)  # (B,)
    of_image = -(alike * log_p).sum(dim=-1) / total.clamp(min=1e-12)
    return of_image.sum(dim=-1) / (total > 0).sum().clamp(min=1)
