"""Online knowledge distillation: image classifiers that teach each other while they train.

`Peers` of `Network`s, trained by a `Method` with `fit`. Names are imported when they are first
used, so that the command's help need not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from codistill.names import METHODS

if TYPE_CHECKING:
    from codistill.data.batch import Batch as Batch
    from codistill.data.batches.photograph import load_image as load_image
    from codistill.errors import InputError as InputError
    from codistill.errors import MissingExtraError as MissingExtraError
    from codistill.methods.method import Method as Method
    from codistill.methods.minimize import Updates as Updates
    from codistill.methods.minimize import minimize as minimize
    from codistill.methods.minimize import objective as objective
    from codistill.methods.papers.afd import AFD as AFD
    from codistill.methods.papers.cl_ilr import CLILR as CLILR
    from codistill.methods.papers.codistillation import Codistillation as Codistillation
    from codistill.methods.papers.dml import DML as DML
    from codistill.methods.papers.ffl import FFL as FFL
    from codistill.methods.papers.ffsd import FFSD as FFSD
    from codistill.methods.papers.independent import Independent as Independent
    from codistill.methods.papers.kd import KD as KD
    from codistill.methods.papers.kdcl import KDCL as KDCL
    from codistill.methods.papers.mcl import MCL as MCL
    from codistill.methods.papers.mfef import MFEF as MFEF
    from codistill.methods.papers.okddip import OKDDip as OKDDip
    from codistill.methods.papers.okdmde import OKDMDE as OKDMDE
    from codistill.methods.papers.one import ONE as ONE
    from codistill.methods.papers.pcl import PCL as PCL
    from codistill.methods.papers.shake import SHAKE as SHAKE
    from codistill.methods.papers.switokd import SwitOKD as SwitOKD
    from codistill.networks import Network as Network
    from codistill.networks.build import build_network as build_network
    from codistill.networks.peers import Kept as Kept
    from codistill.networks.peers import Outputs as Outputs
    from codistill.networks.peers import Peers as Peers
    from codistill.networks.student import save_student as save_student
    from codistill.runs.run import Run as Run
    from codistill.runs.student import load_student as load_student
    from codistill.settings.config import Config as Config
    from codistill.settings.load_data import load_data as load_data
    from codistill.training.evaluate import evaluate as evaluate
    from codistill.training.fit import epochs as epochs
    from codistill.training.fit import fit as fit
    from codistill.training.state import TrainingState as TrainingState
    from codistill.training.updates import UpdateOptions as UpdateOptions

_NAMES = {
    "data.batch": ["Batch"],
    "data.batches.photograph": ["load_image"],
    "errors": ["InputError", "MissingExtraError"],
    "methods.method": ["Method"],
    "methods.minimize": ["Updates", "minimize", "objective"],
    "networks": ["Network", "build_network"],
    "networks.peers": ["Kept", "Outputs", "Peers"],
    "networks.student": ["save_student"],
    "runs.run": ["Run"],
    "runs.student": ["load_student"],
    "settings.config": ["Config"],
    "settings.load_data": ["load_data"],
    "training.evaluate": ["evaluate"],
    "training.fit": ["epochs", "fit"],
    "training.state": ["TrainingState"],
    "training.updates": ["UpdateOptions"],
}
_HOMES = {name: f"codistill.{module}" for module, names in _NAMES.items() for name in names}
_HOMES |= {name: home for home, _, name in (path.partition(":") for path in METHODS.values())}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'codistill' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
