"""What is built in, by name, without importing PyTorch: the command's help reads this.

A new method needs its file and its line here; one kept elsewhere needs no line: it is given as
`package.module:Class`.
"""

from typing import NamedTuple

METHODS: dict[str, str] = {
    "independent": "codistill.methods.independent:Independent",
    "kd": "codistill.methods.kd:KD",
    "dml": "codistill.methods.dml:DML",
    "cl_ilr": "codistill.methods.cl_ilr:CLILR",
    "one": "codistill.methods.one:ONE",
    "codistillation": "codistill.methods.codistillation:Codistillation",
    "kdcl": "codistill.methods.kdcl:KDCL",
    "okddip": "codistill.methods.okddip:OKDDip",
    "pcl": "codistill.methods.pcl:PCL",
    "ffl": "codistill.methods.ffl:FFL",
    "afd": "codistill.methods.afd:AFD",
    "okdmde": "codistill.methods.okdmde:OKDMDE",
    "mfef": "codistill.methods.mfef:MFEF",
}

FAMILIES: dict[str, str] = {
    "resnet": "ResNet of basic blocks",
    "wide_resnet": "Wide ResNet",
}
"""Functions of codistill.networks that build a network, and what it is."""

NETWORKS: dict[str, tuple[str, tuple[int, ...]]] = {
    **{f"resnet{depth}": ("resnet", (depth,)) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{
        f"wrn_{depth}_{width}": ("wide_resnet", (depth, width))
        for depth, width in ((16, 2), (28, 2), (40, 2), (28, 10))
    },
}
"""Name -> the family and its arguments, such as ("resnet", (32,))."""


class KnownDataset(NamedTuple):
    """What can be said of a data set before it is read."""

    about: str
    num_classes: int
    image_size: tuple[int, int]


DATASETS: dict[str, KnownDataset] = {
    "digits": KnownDataset("1,797 handwritten digits that come with scikit-learn", 10, (8, 8)),
    "cifar10": KnownDataset("60,000 photographs; downloaded, or from data.root", 10, (32, 32)),
    "cifar100": KnownDataset("60,000 photographs; downloaded, or from data.root", 100, (32, 32)),
}
