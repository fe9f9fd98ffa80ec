"""Online knowledge distillation: image classifiers that teach each other while they train.

`Peers` of `Network`s, trained by a `Method` with `fit`. Names are imported when they are first
used, so that the command's help need not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codistill.data.batch import Batch as Batch
    from codistill.errors import InputError as InputError
    from codistill.evaluation import evaluate as evaluate
    from codistill.export import load_photograph as load_photograph
    from codistill.export import load_student as load_student
    from codistill.export import save_student as save_student
    from codistill.method import Method as Method
    from codistill.method import minimize as minimize
    from codistill.networks import Network as Network
    from codistill.networks import build_network as build_network
    from codistill.peers import Outputs as Outputs
    from codistill.peers import Peers as Peers
    from codistill.train import Training as Training
    from codistill.train import fit as fit

_HOMES = {
    "Batch": "codistill.method",
    "InputError": "codistill.errors",
    "Method": "codistill.method",
    "Network": "codistill.networks",
    "Outputs": "codistill.peers",
    "Peers": "codistill.peers",
    "Training": "codistill.train",
    "build_network": "codistill.networks",
    "evaluate": "codistill.evaluation",
    "fit": "codistill.train",
    "load_photograph": "codistill.export",
    "load_student": "codistill.export",
    "minimize": "codistill.method",
    "save_student": "codistill.export",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'codistill' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
