"""A module file that builds a network of codistill's own without codistill: it needs PyTorch."""

import importlib.util
import inspect
import re
import sys
from pathlib import Path

from torch import nn

from codistill.importing import import_object
from codistill.names import NETWORKS

_NETWORK = '''
class Network(nn.Module):
    """Stages in turn, the mean over space, a linear layer: images (B, 3, H, W) to logits (B, C)."""

    def __init__(self, stages, channels, reductions, num_classes):
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for stage in self.stages:
            x = stage(x)
        return self.head(x)

'''
_LOAD = '''

def load() -> nn.Module:
    """The trained network in eval mode. It reads model.safetensors beside this file."""
    from pathlib import Path

    from safetensors.torch import load_file

    network = {build}
    network.load_state_dict(load_file(Path(__file__).with_name("model.safetensors")))
    return network.eval()
'''


def standalone(name: str, num_classes: int) -> str:
    """The source of a module with a function `load()`, made of the source of the network's family.

    Args:
        name: a name of `NETWORKS`.
        num_classes: C.
    """
    family, arguments = NETWORKS[name]
    build = import_object(f"codistill.networks:{family}")
    source = inspect.getsource(sys.modules[build.__module__])
    source = re.sub(r"^from codistill\..*\n", "", source, flags=re.MULTILINE)
    source = source.replace("    initialise_convolutions(network)\n", "")
    source = source.replace("InputError", "ValueError")
    source = source.replace("from torch import nn\n", "from torch import Tensor, nn\n")
    imports, _, code = source.partition("\n\n\n")
    call = f"{family}({', '.join([*map(str, arguments), f'num_classes={num_classes}'])})"
    return f"{imports.rstrip()}\n\n{_NETWORK}\n{code.strip()}\n{_LOAD.format(build=call)}"


def load_standalone(file: Path) -> nn.Module:
    """What `load()` of such a module returns."""
    spec = importlib.util.spec_from_file_location("codistill_standalone", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()
