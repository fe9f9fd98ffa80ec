"""Makes a `Network` of a classifier that was not made for this: of timm, of torchvision, of yours.

How it is cut is found by running a copy of it on two random images. What is found is believed only
if the parts then compute what the whole does, in eval and in train mode.
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
from codistill.networks.network import Layout, Network, as_map

_SMALL = 64  # pixels: enough to tell all stages of most networks apart, and quickly computed
_MOST_PREFIX_TOKENS = 8  # class tokens, registers
_TOLERANCE = 1e-4  # of the largest logit


def from_module(model: nn.Module, image_size: tuple[int, int] = (224, 224)) -> Network:
    """A classifier as a network of stages; its modules are taken over, not copied.

    Tried in this order: its children as a chain, cut wherever the size of the map changes; timm's
    `forward_features` and `forward_head`; the whole as one stage, whose last map is read on the
    way. `model`, its modes and the random numbers to come are as before.

    Args:
        model: maps images (B, 3, H, W) to logits (B, C).
        image_size: height and width of the images that it will see.

    Raises:
        InputError: it does not take such images, returns no logits, or has no feature map.
    """
    with _probing(model) as probe:
        num_classes = _logits(probe, image_size).shape[1]
        plan, shapes = _plan(probe, image_size)
        reductions = _reductions(plan(probe)[0], shapes, _images(probe, image_size))
    stages, head = plan(model)
    channels, layouts = [s.channels for s in shapes], [s.layout for s in shapes]
    network = Network(stages, channels, reductions, num_classes, head, layouts)
    known = {id(x): name for name, x in model.state_dict(keep_vars=True).items()}
    ours = network.state_dict(keep_vars=True).items()
    network.names = {name: known[id(x)] for name, x in ours}
    return network


class _Shape(NamedTuple):
    channels: int
    reduction: int
    layout: Layout


class _Call(NamedTuple):
    """What a module was called with and returned, as it was then."""

    name: str
    given: Any
    returned: Any


Plan = Callable[[nn.Module], tuple[list[nn.Module], nn.Module]]
"""Cuts a model into stages and a head."""


def _plan(probe: nn.Module, image_size: tuple[int, int]) -> tuple[Plan, list[_Shape]]:
    for size in dict.fromkeys(((_SMALL, _SMALL), image_size)):
        if size[0] != size[1]:
            continue  # the layout of a map is told by its two equal sides
        images = _images(probe, size)
        for find in (_chain, _features_and_head):
            # A model may want other images, or be written in a way that no cut foresees.
            with contextlib.suppress(Exception):
                found = find(probe, images)
                if found and _same(probe, found[0], images):
                    return found
    return _tapped(probe, image_size)


def _reductions(stages: list[nn.Module], shapes: list[_Shape], images: Tensor) -> list[int]:
    """Side of the image / side of the map, at the size that the network will see."""
    reductions, x = [], images
    height, width = images.shape[2:]
    for stage, shape in zip(stages, shapes, strict=True):
        x = stage(x)
        found = as_map(x, shape.layout, shape.reduction, (height, width))
        reductions.append(max(1, round(height / found.shape[2])))
    return reductions


@contextlib.contextmanager
def _probing(model: nn.Module) -> Iterator[nn.Module]:
    """A copy in eval mode, its weights disturbed: a classifier that starts at zero hides much."""
    with torch.random.fork_rng(), torch.inference_mode(False), torch.no_grad():
        probe = copy.deepcopy(model).eval()
        torch.manual_seed(0)
        for parameter in probe.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
        yield probe


def _images(probe: nn.Module, size: tuple[int, int]) -> Tensor:
    device = next((p.device for p in probe.parameters()), torch.device("cpu"))
    rng = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, *size, generator=rng).to(device)


def _logits(probe: nn.Module, size: tuple[int, int]) -> Tensor:
    kind = type(probe).__name__
    height, width = size
    try:
        logits = probe(_images(probe, size))
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{kind} cannot take images of {height}x{width}: {reason}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"{kind} returns {what} for 2 images: it has to return logits (2, C)")
    return logits


# A chain


def _chain(probe: nn.Module, images: Tensor) -> tuple[Plan, list[_Shape]] | None:
    """The children one after the other, and what stands between them in code, if anything."""
    atoms = dict(_atoms(probe))
    calls, logits = _record(probe, atoms, images)
    if not calls or len({call.name for call in calls}) < len(calls):
        return None
    links: list[tuple[str | None, list[nn.Module]]] = [(call.name, []) for call in calls]
    begins, x = len(calls), images
    shapes: list[_Shape] = []
    cuts: list[int] = []  # where a stage ends, as a number of links
    side = 0
    for i, call in enumerate(calls):
        glue = _glue(x, call.given)
        links[i] = (call.name, glue)
        shape = _shape(call.returned, images.shape[-1])
        if any(map(_pools, [atoms[call.name], *glue])) or shape is None:
            begins = i
            break
        if shape.reduction == side and shapes:
            shapes[-1], cuts[-1] = shape, i + 1
        else:
            shapes.append(shape)
            cuts.append(i + 1)
        side, x = shape.reduction, call.returned
    if not shapes:
        return None
    for i in range(begins, len(calls)):
        links[i] = (calls[i].name, _glue(x, calls[i].given))
        x = calls[i].returned
    last = _glue(x, logits)

    def plan(model: nn.Module) -> tuple[list[nn.Module], nn.Module]:
        named = dict(_atoms(model))
        modules = [[*copy.deepcopy(glue), named[name]] for name, glue in links]  # type: ignore[index]
        stages = [
            nn.Sequential(*(m for part in modules[a:b] for m in part))
            for a, b in zip([0, *cuts], cuts, strict=False)
        ]
        head = [m for part in modules[begins:] for m in part] + copy.deepcopy(last)
        return list(stages), nn.Sequential(*head)

    return plan, shapes


def _atoms(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The children, those in plain containers one by one."""
    for name, child in module.named_children():
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _atoms(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _record(
    probe: nn.Module, modules: dict[str, nn.Module], images: Tensor
) -> tuple[list[_Call], Tensor]:
    """The calls of modules, in the order in which they returned, and the logits."""
    calls: list[_Call] = []
    given: dict[str, Any] = {}

    def before(name: str, arguments: Any) -> None:
        given[name] = _clone(arguments[0]) if len(arguments) == 1 else None

    def after(name: str, returned: Any) -> None:
        calls.append(_Call(name, given[name], _clone(returned)))

    with contextlib.ExitStack() as hooks:
        for name, m in modules.items():
            hooks.enter_context(
                m.register_forward_pre_hook(lambda _, x, name=name: before(name, x))
            )
            hooks.enter_context(m.register_forward_hook(lambda _, __, y, name=name: after(name, y)))
        return calls, probe(images)


def _clone(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) else x


_GLUES: tuple[Callable[[], list[nn.Module]], ...] = (
    lambda: [],
    lambda: [nn.Flatten()],
    lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    lambda: [nn.ReLU()],
    lambda: [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
)


def _glue(x: Any, wanted: Any) -> list[nn.Module]:
    """The modules that make `wanted` of x: what a model writes as code between two children."""
    for make in _GLUES:
        modules = make()
        with contextlib.suppress(Exception):
            y = nn.Sequential(*modules)(x)
            if y.shape == wanted.shape and torch.allclose(y, wanted, rtol=1e-4, atol=1e-5):
                return modules
    raise InputError("nothing known leads from one module to the next")


def _pools(module: nn.Module) -> bool:
    return "Adaptive" in type(module).__name__ and "Pool" in type(module).__name__


def _shape(x: Any, side: int) -> _Shape | None:
    """What a map of square images is like; None if x is none."""
    if not isinstance(x, Tensor):
        return None
    if x.ndim == 4 and x.shape[2] == x.shape[3]:
        return _Shape(x.shape[1], max(1, round(side / x.shape[2])), "NCHW")
    if x.ndim == 4 and x.shape[1] == x.shape[2]:
        return _Shape(x.shape[3], max(1, round(side / x.shape[1])), "NHWC")
    if x.ndim == 3:
        places = math.isqrt(x.shape[1])
        divides = places > 1 and side % places == 0
        if divides and x.shape[1] - places**2 <= _MOST_PREFIX_TOKENS:
            return _Shape(x.shape[2], side // places, "tokens")
    return None


# timm's two halves


def _features_and_head(probe: nn.Module, images: Tensor) -> tuple[Plan, list[_Shape]] | None:
    if not all(hasattr(probe, name) for name in ("forward_features", "forward_head")):
        return None
    children = dict(probe.named_children())
    run: Any = probe
    with_features, features = _called(children, lambda: run.forward_features(images))
    shape = _shape(features, images.shape[-1])
    if shape is None:
        return None
    in_head, _ = _called(children, lambda: run.forward_head(features))
    in_head -= with_features

    def plan(model: nn.Module) -> tuple[list[nn.Module], nn.Module]:
        rest = [name for name, _ in model.named_children() if name not in in_head]
        head = Part(model, "forward_head", sorted(in_head), parameters=False)
        return [Part(model, "forward_features", rest)], head

    return plan, [shape]


def _called(children: dict[str, nn.Module], run: Callable[[], Any]) -> tuple[set[str], Any]:
    """Which children, or modules in them, `run` calls; and what it returns."""
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
        model: keeps its class and settings here, and loses all other children.
        method: the name of what `forward` calls, with one tensor.
        children: names of those that stay.
        parameters: whether the parameters that the model holds itself stay, too.
    """

    def __init__(
        self, model: nn.Module, method: str, children: Sequence[str], parameters: bool = True
    ):
        super().__init__()
        self.model = copy.copy(model)
        own = self.model.__dict__
        own["_modules"] = {name: model._modules[name] for name in children}
        for kind in ("_parameters", "_buffers"):
            own[kind] = dict(own[kind]) if parameters else {}
        self.method = method

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.model, self.method)(x)


# The whole, tapped


def _tapped(probe: nn.Module, image_size: tuple[int, int]) -> tuple[Plan, list[_Shape]]:
    modules = {name: m for name, m in probe.named_modules() if name}
    side = image_size[0] if image_size[0] == image_size[1] else _SMALL
    calls, _ = _record(probe, modules, _images(probe, (side, side)))
    found = [(c.name, s) for c in calls if (s := _shape(c.returned, side)) and s.reduction < side]
    if not found:
        raise InputError(
            f"{type(probe).__name__} has no feature map that could be found: none of its modules "
            "returns (B, D, H, W), (B, H, W, D) or tokens (B, N, D) of square images. Build a "
            "codistill.Network of its parts"
        )
    name, shape = found[-1]

    def plan(model: nn.Module) -> tuple[list[nn.Module], nn.Module]:
        return [Tapped(model, name, shape.layout, shape.reduction)], _Second()

    return plan, [shape._replace(layout="tapped")]


class Tapped(nn.Module):
    """A whole classifier that also tells one of its feature maps.

    Args:
        model: maps images to logits.
        name: of the module inside that returns the map.
        layout: how that module returns it.
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


def _same(probe: nn.Module, plan: Plan, images: Tensor) -> bool:
    """Whether the parts compute what the whole does, in eval and in train mode."""
    for training in (False, True):
        whole = copy.deepcopy(probe).train(training)
        stages, head = plan(copy.deepcopy(probe).train(training))
        torch.manual_seed(1)
        expected = whole(images)
        torch.manual_seed(1)
        x = images
        for stage in [*stages, head]:
            x = stage.train(training)(x)
        if not isinstance(expected, Tensor) or x.shape != expected.shape:
            return False
        if not (x - expected).abs().max() <= _TOLERANCE * expected.abs().max():
            return False
    return True
