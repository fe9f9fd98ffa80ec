"""What is built in, by name, without importing PyTorch: the command's help reads this.

A new method needs its file and its line here; one kept elsewhere needs no line: it is given as
`package.module:Class`.
"""

from typing import NamedTuple

METHODS: dict[str, str] = {
    "independent": "codistill.methods.papers.independent:Independent",
    "kd": "codistill.methods.papers.kd:KD",
    "shake": "codistill.methods.papers.shake:SHAKE",
    "dml": "codistill.methods.papers.dml:DML",
    "switokd": "codistill.methods.papers.switokd:SwitOKD",
    "cl_ilr": "codistill.methods.papers.cl_ilr:CLILR",
    "one": "codistill.methods.papers.one:ONE",
    "codistillation": "codistill.methods.papers.codistillation:Codistillation",
    "kdcl": "codistill.methods.papers.kdcl:KDCL",
    "okddip": "codistill.methods.papers.okddip:OKDDip",
    "pcl": "codistill.methods.papers.pcl:PCL",
    "mcl": "codistill.methods.papers.mcl:MCL",
    "ffl": "codistill.methods.papers.ffl:FFL",
    "ffsd": "codistill.methods.papers.ffsd:FFSD",
    "afd": "codistill.methods.papers.afd:AFD",
    "okdmde": "codistill.methods.papers.okdmde:OKDMDE",
    "mfef": "codistill.methods.papers.mfef:MFEF",
}

FAMILIES: dict[str, str] = {
    "resnet": "ResNet of basic blocks",
    "bottleneck_resnet": "ResNet of bottlenecks",
    "wide_resnet": "Wide ResNet",
    "vgg": "VGG with batch normalisation",
    "densenet": "DenseNet",
    "densenet_bc": "DenseNet-BC",
    "mobilenet_v1": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "shufflenet_v2": "ShuffleNetV2",
}
"""Functions of codistill.networks that build a network, and what it is."""

NETWORKS: dict[str, tuple[str, tuple[int, ...]]] = {
    **{f"resnet{depth}": ("resnet", (depth,)) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet110_bottleneck": ("bottleneck_resnet", (110, 1)),
    "resnet164": ("bottleneck_resnet", (164, 1)),
    **{f"wrn_16_{width}": ("wide_resnet", (16, width)) for width in (1, 2, 4, 8)},
    "okddip_wrn_20_8": ("bottleneck_resnet", (20, 8)),
    **{f"wrn_28_{width}": ("wide_resnet", (28, width)) for width in (2, 4, 10)},
    **{f"wrn_40_{width}": ("wide_resnet", (40, width)) for width in (1, 2)},
    "vgg16": ("vgg", (16,)),
    "vgg19": ("vgg", (19,)),
    "densenet_40_12": ("densenet", (40, 12)),
    "densenet_bc_40_12": ("densenet_bc", (40, 12)),
    "densenet_bc_100_12": ("densenet_bc", (100, 12)),
    "mobilenet_v1": ("mobilenet_v1", ()),
    "mobilenet_v2": ("mobilenet_v2", ()),
    "shufflenet_v2": ("shufflenet_v2", ()),
}
"""Name -> the family and its arguments, such as ("resnet", (32,))."""


class KnownDataset(NamedTuple):
    """What can be said of a data set before it is read; None: it depends on yours.

    Attributes:
        about: one line.
        num_classes: C.
        image_size: height and width in pixels.
        images: number of images as published.
    """

    about: str
    num_classes: int | None
    image_size: tuple[int, int] | None
    images: int | None = None


DATASETS: dict[str, KnownDataset] = {
    "digits": KnownDataset(
        "1,797 handwritten digits that come with scikit-learn", 10, (8, 8), 1_797
    ),
    "cifar10": KnownDataset(
        "60,000 photographs; downloaded, or from data.root", 10, (32, 32), 60_000
    ),
    "cifar100": KnownDataset(
        "60,000 photographs; downloaded, or from data.root", 100, (32, 32), 60_000
    ),
    "cinic10": KnownDataset("270,000 photographs, as published", 10, (32, 32), 270_000),
    "tiny_imagenet": KnownDataset("110,000 photographs, as published", 200, (64, 64), 110_000),
    "imagenet": KnownDataset("ILSVRC 2012, 1.3 million photographs, as published", 1000, None),
    "folder": KnownDataset("your photographs, one folder per class", None, None),
    "csv": KnownDataset("your photographs, listed in a table of paths and labels", None, None),
    "parquet": KnownDataset("tables with a column of images and one of labels", None, None),
    "hub": KnownDataset("a data set of the Hugging Face Hub, or a local one", None, None),
    "webdataset": KnownDataset("tar files with images and .cls, .json or .txt", None, None),
}
