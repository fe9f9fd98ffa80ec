"""The number of parameters of a method, by owner."""

import torch

from codistill.methods.adapters import MatchSize, MatchWidth
from codistill.methods.method import Method

ADAPTERS = MatchSize, MatchWidth


def parameter_counts(method: Method) -> dict[str, int]:
    """The number of parameters of each peer and student, of all peers together, and of the rest.

    "method" counts the parameters that are trained beside the peers. "adapters" is the part of them
    that brings maps of different networks to one size and width. "frozen" counts the others.
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
