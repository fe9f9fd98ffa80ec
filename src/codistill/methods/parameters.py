"""How many parameters a method has, and whose they are."""

import torch

from codistill.methods.adapters import MatchSize, MatchWidth
from codistill.methods.method import Method

ADAPTERS = MatchSize, MatchWidth


def parameter_counts(method: Method) -> dict[str, int]:
    """Parameters of each peer and student alone, of all peers together, and what is added.

    "method" counts those that are trained beside the peers, "adapters" among these the layers that
    bring maps of different networks to one size and width, "frozen" those that are not trained.
    """

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    peers = method.peers
    alone = {
        f"peer{k}": count(peers.trunk) + count(peers.branches[k]) + count(peers.heads[k])
        for k in range(len(peers))
    }
    students = {name: alone[f"peer{kept.k}"] for name, kept in method.students().items()}
    added = {*method.parameters()} - {*peers.parameters()}
    return (
        alone
        | students
        | {
            "peers": count(peers),
            "method": sum(p.numel() for p in added if p.requires_grad),
            "adapters": sum(count(m) for m in method.modules() if isinstance(m, ADAPTERS)),
            "frozen": sum(p.numel() for p in added if not p.requires_grad),
        }
    )
