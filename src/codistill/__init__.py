"""Online knowledge distillation: image classifiers that teach each other while they train.

`Peers` of `Network`s, trained by a `Method` with `fit`. Names are imported when they are first
used, so that the command's help need not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codistill.data.batch import Batch as Batch
    from codistill.data.batches.photograph import load_image as load_image
    from codistill.errors import InputError as InputError
    from codistill.methods.method import Method as Method
    from codistill.methods.method import minimize as minimize
    from codistill.networks import Network as Network
    from codistill.networks.build import build_network as build_network
    from codistill.networks.peers import Outputs as Outputs
    from codistill.networks.peers import Peers as Peers
    from codistill.networks.student import save_student as save_student
    from codistill.runs.student import load_student as load_student
    from codistill.settings.build_data import load_data as load_data
    from codistill.training.evaluate import evaluate as evaluate
    from codistill.training.fit import epochs as epochs
    from codistill.training.fit import fit as fit
    from codistill.training.state import TrainingState as TrainingState

_HOMES = {
    "Batch": "codistill.data.batch",
    "InputError": "codistill.errors",
    "Method": "codistill.methods.method",
    "Network": "codistill.networks",
    "Outputs": "codistill.networks.peers",
    "Peers": "codistill.networks.peers",
    "TrainingState": "codistill.training.state",
    "build_network": "codistill.networks",
    "epochs": "codistill.training.fit",
    "evaluate": "codistill.training.evaluate",
    "fit": "codistill.training.fit",
    "load_data": "codistill.settings.build_data",
    "load_image": "codistill.data.batches.photograph",
    "load_student": "codistill.runs.student",
    "minimize": "codistill.methods.method",
    "save_student": "codistill.networks.student",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'codistill' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
