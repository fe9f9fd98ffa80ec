"""The papers, one file each."""

from codistill.errors import InputError, did_you_mean
from codistill.importing import import_object
from codistill.methods.method import Method
from codistill.methods.papers.afd import AFD
from codistill.methods.papers.cl_ilr import CLILR
from codistill.methods.papers.codistillation import Codistillation
from codistill.methods.papers.dml import DML
from codistill.methods.papers.ffl import FFL
from codistill.methods.papers.ffsd import FFSD
from codistill.methods.papers.independent import Independent
from codistill.methods.papers.kd import KD
from codistill.methods.papers.kdcl import KDCL
from codistill.methods.papers.mcl import MCL
from codistill.methods.papers.mfef import MFEF
from codistill.methods.papers.okddip import OKDDip
from codistill.methods.papers.okdmde import OKDMDE
from codistill.methods.papers.one import ONE
from codistill.methods.papers.pcl import PCL
from codistill.methods.papers.shake import SHAKE
from codistill.methods.papers.switokd import SwitOKD
from codistill.names import METHODS

__all__ = [
    "AFD",
    "CLILR",
    "DML",
    "FFL",
    "FFSD",
    "KD",
    "KDCL",
    "MCL",
    "METHODS",
    "MFEF",
    "OKDDip",
    "OKDMDE",
    "ONE",
    "PCL",
    "SHAKE",
    "Codistillation",
    "Independent",
    "SwitOKD",
    "method_class",
]


def method_class(name: str) -> type[Method]:
    """The class of a method, by its name or as `package.module:Class`."""
    if ":" not in name and name not in METHODS:
        raise InputError(f"method {name!r} is not known: {did_you_mean(name, METHODS)}")
    found = import_object(METHODS.get(name, name))
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InputError(f"{name} is no subclass of codistill.Method")
    return found
