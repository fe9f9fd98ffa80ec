"""Makes a `Network` of a classifier that was not made for this: of timm, of torchvision, of yours.

A copy runs on random images to find a cut. The cut is believed only if the parts compute what the
whole does: logits in eval and in train mode, gradients, random numbers drawn, at the size that the
network will see and at another, with nothing of the model left out.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from codistill.errors import InputError, reason
from codistill.messages import note
from codistill.networks.cutting.cuts import (
    IMAGES,
    Cut,
    Found,
    Part,
    Shape,
    chain,
    clone,
    features_and_head,
    random_images,
    tapped_whole,
)
from codistill.networks.network import Network, as_map

_SMALL = 64, 96  # pixels: enough to tell the stages of most networks apart, quickly computed
_PARALLEL = nn.DataParallel, nn.parallel.DistributedDataParallel  # both hold it as `module`
_TOLERANCE = 1e-4  # of the largest number


def from_module(model: nn.Module, image_size: tuple[int, int] = (224, 224)) -> Network:
    """A classifier as a network of stages; its modules are taken over, not copied.

    It tries, in this order: the children as a chain, cut wherever the size of the map changes;
    timm's `forward_features` and `forward_head`; the whole as one stage, whose last map is read on
    the way. `model`, its modes and the random numbers to come stay as they were.

    Args:
        model: a classifier that maps images (B, 3, H, W) to logits (B, C).
        image_size: height and width of the images that it will see, in pixels.

    Raises:
        InputError: the model does not take such images, returns no logits, or has no feature map.
    """
    while type(model) in _PARALLEL or hasattr(model, "_orig_mod"):  # or of torch.compile
        held = model.module if type(model) in _PARALLEL else model._orig_mod
        model = cast(nn.Module, held)
    with _probing(model) as probe:
        num_classes = _count_classes(probe, image_size)
        cut, shapes, changes_input = _find_cut(probe, image_size, num_classes)
    stages, head = cut(model)
    parts = [
        nn.Sequential(_Copy(), part) if changes else part
        for part, changes in zip([*stages, head], changes_input, strict=True)
    ]
    return Network(
        parts[:-1],
        [s.channels for s in shapes],
        [s.reduction for s in shapes],
        num_classes,
        parts[-1],
        [s.layout for s in shapes],
        _names(parts, model),
    )


def _find_cut(
    probe: nn.Module, image_size: tuple[int, int], num_classes: int
) -> tuple[Cut, list[Shape], list[bool]]:
    """The cut, the shapes at that size, and which parts change their input in place."""
    height, width = image_size
    small = [(side, side) for side in _SMALL if (side, side) != image_size]
    sizes = [size for size in [*small[:1], image_size] if _takes(probe, size)]
    for size in sizes:
        if size[0] != size[1]:
            continue  # two equal sides show the layout of a map
        for find in (chain, features_and_head):
            # A model may need other images, or be written in a way that no cut foresees.
            with contextlib.suppress(Exception):
                found = find(probe, random_images(probe, size), num_classes)
                if found and all(_same(probe, found[0], random_images(probe, s)) for s in sizes):
                    return found[0], *_measure(probe, found, sizes)
    found = tapped_whole(probe, (height, height) if height == width else small[0])
    return found[0], *_measure(probe, found, sizes)


@contextlib.contextmanager
def _probing(model: nn.Module) -> Iterator[nn.Module]:
    """A copy in eval mode, to run freely; random numbers of the CPU and of its GPU are kept."""
    kind = type(model).__name__
    gpus = {x.device for x in (*model.parameters(), *model.buffers()) if x.is_cuda}
    try:
        with torch.random.fork_rng(gpus), torch.inference_mode(False), torch.no_grad():
            probe = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            yield probe
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{kind} cannot be examined: {reason(error)}") from error


def _count_classes(probe: nn.Module, size: tuple[int, int]) -> int:
    kind = type(probe).__name__
    for training in (False, True):
        height, width = size
        whole = copy.deepcopy(probe).train(training)
        try:
            logits = whole(random_images(probe, size))
        except Exception as error:
            why = f"{kind} cannot take images of {height}x{width}: {reason(error)}"
            raise InputError(why) from error
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != IMAGES:
            what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            when = " in train mode" if training else ""
            raise InputError(
                f"{kind} returns {what} for {IMAGES} images{when}: it has to return logits "
                f"({IMAGES}, C), so switch auxiliary outputs off"
            )
        if not training and _are_probabilities(logits):
            note(
                f"{kind} returns probabilities, it seems: its outputs are above 0 and sum to 1. "
                "Methods want logits: leave out the softmax at its end"
            )
    return logits.shape[1]


def _are_probabilities(x: Tensor) -> bool:
    return x.shape[1] > 1 and bool((x > 0).all() and (x.sum(1) - 1).abs().max() < _TOLERANCE)


def _takes(probe: nn.Module, size: tuple[int, int]) -> bool:
    with contextlib.suppress(Exception):
        probe(random_images(probe, size))
        return True
    return False


def _measure(
    probe: nn.Module, found: Found, sizes: Sequence[tuple[int, int]]
) -> tuple[list[Shape], list[bool]]:
    """The shapes at the last size, and which parts change their input in place."""
    cut, shapes = found
    stages, head = cut(copy.deepcopy(probe))
    measured: list[Shape] = []
    writes: list[bool] = []
    for size in sizes:
        x: Any = random_images(probe, size)
        measured, writes = [], []
        for stage, shape in zip(stages, shapes, strict=True):
            before, x = x, stage(given := clone(x))
            writes.append(_differ(before, given))
            found_map = as_map(x, shape.layout, shape.reduction, size)
            if found_map.shape[1] != shape.channels:
                raise InputError(f"the channels of a map of {type(probe).__name__} depend on size")
            reduction = max(1, round(size[0] / found_map.shape[2]))
            measured.append(shape._replace(reduction=reduction))
        given = clone(x)
        head(given)
        writes.append(_differ(x, given))
    return measured, writes


def _names(parts: Sequence[nn.Module], model: nn.Module) -> dict[str, str]:
    """The name in the model of each weight and buffer of a `Network` of these parts."""
    paths: dict[int, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), f"{path}." if path else "")

    def walk(module: nn.Module, ours: str) -> Iterator[tuple[str, str]]:
        if id(module) in paths:
            for name in module.state_dict():
                yield f"{ours}{name}", f"{paths[id(module)]}{name}"
        elif isinstance(module, Part):
            for name in module.model.state_dict():
                yield f"{ours}model.{name}", name
        else:
            for name, child in module.named_children():
                yield from walk(child, f"{ours}{name}.")

    prefixes = [*(f"stages.{s}." for s in range(len(parts) - 1)), "head."]
    found = zip(prefixes, parts, strict=True)
    return dict(pair for prefix, part in found for pair in walk(part, prefix))


# Whether to believe it


def _same(probe: nn.Module, cut: Cut, images: Tensor) -> bool:
    """Whether the parts are the whole: see the top of this file."""
    whole, other = copy.deepcopy(probe), copy.deepcopy(probe)
    stages, head = cut(other)
    parts = nn.Sequential(*stages, head)
    if set(_names([*parts], other).values()) != set(other.state_dict()):
        return False
    for training in (False, True):
        expected, random_state = _run(whole.train(training), images)
        logits, own_random_state = _run(parts.train(training), images)
        if not (_close(logits, expected) and torch.equal(own_random_state, random_state)):
            return False
    gradients = [[p.grad for p in m.parameters()] for m in (whole, other)]
    none = images.new_zeros(1)
    own, expected = (
        torch.cat([none, *(g.flatten() for g in gs if g is not None)]) for gs in gradients
    )
    buffers = zip(whole.buffers(), other.buffers(), strict=True)
    return _close(own, expected, 10 * _TOLERANCE) and all(_close(a, b) for a, b in buffers)


def _run(f: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the state of the random numbers afterwards. Gradients reach the weights."""
    torch.default_generator.manual_seed(1)  # torch.manual_seed would seed every GPU
    if images.is_cuda:
        with torch.cuda.device(images.device):
            torch.cuda.manual_seed(1)
    with torch.enable_grad():
        logits = f(images.clone())
        random_state = torch.get_rng_state()
        if logits.requires_grad:
            weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype)
            (logits * weights.to(logits.device).view_as(logits)).sum().backward()
    return logits.detach(), random_state


def _close(a: Tensor, b: Tensor, tolerance: float = _TOLERANCE) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance * b.abs().max())


def _differ(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and not torch.equal(a, b)


class _Copy(nn.Module):
    """Stands before a part that changes its input in place, which other peers read too."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()
