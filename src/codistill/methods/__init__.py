"""The papers, one file each."""

from codistill.errors import InputError, did_you_mean
from codistill.importing import import_object
from codistill.method import Method
from codistill.methods.afd import AFD
from codistill.methods.cl_ilr import CLILR
from codistill.methods.codistillation import Codistillation
from codistill.methods.dml import DML
from codistill.methods.ffl import FFL
from codistill.methods.independent import Independent
from codistill.methods.kd import KD
from codistill.methods.kdcl import KDCL
from codistill.methods.mfef import MFEF
from codistill.methods.okddip import OKDDip
from codistill.methods.okdmde import OKDMDE
from codistill.methods.one import ONE
from codistill.methods.pcl import PCL
from codistill.names import METHODS

__all__ = [
    "AFD",
    "CLILR",
    "DML",
    "FFL",
    "KD",
    "KDCL",
    "METHODS",
    "MFEF",
    "OKDDip",
    "OKDMDE",
    "ONE",
    "PCL",
    "Codistillation",
    "Independent",
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
