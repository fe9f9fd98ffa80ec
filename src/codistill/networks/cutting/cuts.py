"""Ways to cut a classifier into stages, found by running it on random images.

Each is only a proposal: `from_module` tries it before it believes it.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codistill.errors import InputError
from codistill.networks.network import Layout, as_map

IMAGES = 2
_MOST_PREFIX_TOKENS = 8  # class tokens, registers


class Shape(NamedTuple):
    channels: int
    reduction: int
    layout: Layout


class _Call(NamedTuple):
    """The input and the output of a module in a call, as they were then."""

    name: str
    given: Any
    returned: Any


Cut = Callable[[nn.Module], tuple[list[nn.Module], nn.Module]]
"""Cuts a model into stages and a head."""
Found = tuple[Cut, list[Shape]]


def random_images(probe: nn.Module, size: tuple[int, int]) -> Tensor:
    """Random images in the memory layout and precision of a training."""
    like = next((p for p in probe.parameters() if p.is_floating_point()), torch.empty(0))
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, 3, *size, generator=rng)
    return images.to(like.device, like.dtype, memory_format=torch.channels_last)


# A chain


def chain(probe: nn.Module, images: Tensor, num_classes: int) -> Found | None:
    """The children one after the other, and the operations written as code between them."""
    atoms = dict(_atoms(probe))
    calls, logits = _record(probe, atoms, images)
    if len({call.name for call in calls}) < len(calls):
        return None  # one of them is called twice
    glues = [
        _glue(*pair) for pair in zip([images, *(c.returned for c in calls)], calls, strict=False)
    ]
    with_weights = [i for i, call in enumerate(calls) if [*atoms[call.name].parameters()]]
    shapes: list[Shape] = []
    cuts: list[int] = []  # where a stage ends, as a number of calls
    begins = len(calls)  # the head
    for i, call in enumerate(calls):
        shape = _shape(call.returned, images.shape[-1])
        classifies = i == with_weights[-1] and shape and shape.channels == num_classes
        if shape is None or classifies or any(map(_pools, [atoms[call.name], *glues[i]])):
            begins = i
            break
        if shapes and shape.reduction == shapes[-1].reduction:
            shapes[-1], cuts[-1] = shape, i + 1
        else:
            shapes.append(shape)
            cuts.append(i + 1)
    if not shapes:
        return None
    end = _glue(calls[-1].returned, logits)
    names = [call.name for call in calls]

    def cut(model: nn.Module) -> tuple[list[nn.Module], nn.Module]:
        named = dict(_atoms(model))
        links = [[*copy.deepcopy(glue), named[n]] for glue, n in zip(glues, names, strict=True)]
        stages = [
            nn.Sequential(*(m for link in links[a:b] for m in link))
            for a, b in zip([0, *cuts], cuts, strict=False)
        ]
        head = [m for link in links[begins:] for m in link]
        return list(stages), nn.Sequential(*head, *copy.deepcopy(end))

    return cut, shapes


def _atoms(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The children by name; those of plain containers one by one."""
    for name, child in module.named_children():
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _atoms(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _record(
    probe: nn.Module, modules: dict[str, nn.Module], images: Tensor
) -> tuple[list[_Call], Tensor]:
    """The calls of modules in the order in which they returned, and the logits."""
    calls: list[_Call] = []
    given: dict[str, Any] = {}

    def before(name: str, arguments: Any) -> None:
        given[name] = clone(arguments[0]) if len(arguments) == 1 else None

    def after(name: str, returned: Any) -> None:
        calls.append(_Call(name, given[name], clone(returned)))

    with contextlib.ExitStack() as hooks:
        for name, m in modules.items():
            hooks.enter_context(
                m.register_forward_pre_hook(lambda _, x, name=name: before(name, x))
            )
            hooks.enter_context(m.register_forward_hook(lambda _, __, y, name=name: after(name, y)))
        return calls, probe(images.clone())


def clone(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) else x


_GLUES: tuple[Callable[[], list[nn.Module]], ...] = (
    lambda: [],
    lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    lambda: [nn.Flatten()],
    lambda: [nn.ReLU()],
    lambda: [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
)


def _glue(x: Any, wanted: _Call | Tensor) -> list[nn.Module]:
    """The modules that turn x into `wanted`: what a model writes as code between two children."""
    target = wanted.given if isinstance(wanted, _Call) else wanted
    for make in _GLUES:
        modules = make()
        with contextlib.suppress(Exception):
            y = nn.Sequential(*modules)(x)
            if y.shape == target.shape and torch.allclose(y, target, rtol=1e-4, atol=1e-5):
                return modules
    raise LookupError("nothing known leads from one module to the next")


def _pools(module: nn.Module) -> bool:
    return "Adaptive" in type(module).__name__ and "Pool" in type(module).__name__


def _shape(x: Any, side: int, fewest_places: int = 4) -> Shape | None:
    """The shape of a feature map of square images; None if x is no map."""
    if not isinstance(x, Tensor) or len(x) != IMAGES:
        return None
    if x.ndim == 4 and x.shape[2] == x.shape[3]:
        return Shape(x.shape[1], max(1, round(side / x.shape[2])), "NCHW")
    if x.ndim == 4 and x.shape[1] == x.shape[2]:
        return Shape(x.shape[3], max(1, round(side / x.shape[1])), "NHWC")
    if x.ndim == 3 and x.shape[1] >= fewest_places:
        places = math.isqrt(x.shape[1])
        if side % places == 0 and x.shape[1] - places**2 <= _MOST_PREFIX_TOKENS:
            return Shape(x.shape[2], side // places, "tokens")
    return None


# timm's two halves


def features_and_head(probe: nn.Module, images: Tensor, num_classes: int) -> Found | None:
    if not all(hasattr(probe, name) for name in ("forward_features", "forward_head")):
        return None
    run: Any = probe
    children = dict(probe.named_children())
    with_features, features = _called(children, lambda: run.forward_features(images.clone()))
    shape = _shape(features, images.shape[-1], fewest_places=1)
    if shape is None:
        return None
    in_head, _ = _called(children, lambda: run.forward_head(features))
    in_head -= with_features

    def cut(model: nn.Module) -> tuple[list[nn.Module], nn.Module]:
        rest = [name for name, _ in model.named_children() if name not in in_head]
        head = Part(model, "forward_head", sorted(in_head), parameters=False)
        return [Part(model, "forward_features", rest)], head

    return cut, [shape]


def _called(children: dict[str, nn.Module], run: Callable[[], Any]) -> tuple[set[str], Any]:
    """The names of the children that `run` calls, wholly or in part; and what it returns."""
    called: set[str] = set()
    with contextlib.ExitStack() as hooks:
        for name, child in children.items():
            for m in child.modules():
                hooks.enter_context(
                    m.register_forward_pre_hook(lambda *_, name=name: called.add(name))
                )
        return called, run()


class Part(nn.Module):
    """Some children of a model, and the method of the model that runs them.

    Args:
        model: the model; its copy here keeps class and settings, and loses all other children.
        method: the name of the method that `forward` calls with one tensor.
        children: the names of the children that stay.
        parameters: whether the parameters and buffers that the model holds itself stay, too.
    """

    def __init__(
        self, model: nn.Module, method: str, children: Sequence[str], parameters: bool = True
    ):
        super().__init__()
        self.model = copy.copy(model)
        own = self.model.__dict__
        own["_modules"] = {name: model._modules[name] for name in children}
        if not parameters:
            own["_parameters"], own["_buffers"] = {}, {}
        self.method = method

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.model, self.method)(x)


# The whole, tapped


def tapped_whole(probe: nn.Module, size: tuple[int, int]) -> Found:
    modules = {name: m for name, m in probe.named_modules() if name}
    calls, _ = _record(probe, modules, random_images(probe, size))
    side = size[0]
    shapes = {call.name: _shape(call.returned, side) for call in calls}
    inner = {  # modules that return something else, such as an attention's keys
        call.name
        for call in calls
        if isinstance(call.returned, Tensor) and call.returned.ndim > 2 and not shapes[call.name]
    }
    found = [
        (name, shape)
        for name, shape in ((call.name, shapes[call.name]) for call in calls)
        if shape and shape.reduction < side and not any(name.startswith(f"{n}.") for n in inner)
    ]
    if not found:
        raise InputError(
            f"{type(probe).__name__} has no feature map that could be found: none of its modules "
            "returns (B, D, H, W), (B, H, W, D) or tokens (B, N, D) of square images. Build a "
            "codistill.Network of its parts"
        )
    name, shape = found[-1]

    def cut(model: nn.Module) -> tuple[list[nn.Module], nn.Module]:
        return [Tapped(model, name, shape.layout, shape.reduction)], _Second()

    return cut, [shape._replace(layout="tapped")]


class Tapped(nn.Module):
    """A whole classifier that also returns one of its feature maps.

    Args:
        model: the classifier, which maps images to logits.
        name: the name of the module inside that returns the map.
        layout: the form in which that module returns it.
        reduction: side of the image / side of the map.
    """

    def __init__(self, model: nn.Module, name: str, layout: Layout, reduction: int):
        super().__init__()
        self.model = model
        self.name = name
        self.layout = layout
        self.reduction = reduction

    def forward(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B D h w"], Float[Tensor, "B C"]]:
        found: list[Any] = []
        tapped = self.model.get_submodule(self.name)
        with tapped.register_forward_hook(lambda _, __, returned: found.append(returned)):
            logits = self.model(images)
        height, width = images.shape[2:]
        return as_map(found[-1], self.layout, self.reduction, (height, width)), logits


class _Second(nn.Module):
    """The head of a tapped model, whose logits are computed already."""

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[1]
