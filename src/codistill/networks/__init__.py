"""Image classifiers cut into stages."""

from codistill.names import NETWORKS
from codistill.networks.build import build_network
from codistill.networks.classifier import renew_equal_classifiers
from codistill.networks.cutting.from_module import from_module
from codistill.networks.families.bottleneck_resnet import bottleneck_resnet
from codistill.networks.families.densenet import densenet, densenet_bc
from codistill.networks.families.mobilenet_v1 import mobilenet_v1
from codistill.networks.families.mobilenet_v2 import mobilenet_v2
from codistill.networks.families.resnet import resnet
from codistill.networks.families.shufflenet_v2 import shufflenet_v2
from codistill.networks.families.vgg import vgg
from codistill.networks.families.wide_resnet import wide_resnet
from codistill.networks.network import Network
from codistill.networks.start import start_from

__all__ = [
    "NETWORKS",
    "Network",
    "bottleneck_resnet",
    "build_network",
    "densenet",
    "densenet_bc",
    "from_module",
    "mobilenet_v1",
    "mobilenet_v2",
    "renew_equal_classifiers",
    "resnet",
    "shufflenet_v2",
    "start_from",
    "vgg",
    "wide_resnet",
]
