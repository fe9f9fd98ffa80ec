"""Weights that a network starts from: found in a file, whatever the trainer put around them."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from codistill.errors import InputError
from codistill.files import reading
from codistill.messages import note
from codistill.networks.network import Network
from codistill.networks.pickled import Other, is_safetensors, read_pickled
from codistill.tensor_files import read_weights

_WRAPPERS = {"module", "_orig_mod"}  # of DataParallel and torch.compile, anywhere in a name
_COUNTERS = {  # buffers that change nothing that a network computes from its weights
    "num_batches_tracked",
    "total_ops",
    "total_params",
    "n_averaged",
    "attn_mask",
    "relative_position_index",
}
_POSITIONS = {"pos_embed", "pos_embedding", "position_embedding", "position_embeddings"}
_BIASES = {"relative_position_bias_table"}
_MOST_PREFIX_TOKENS = 8
_DEEPEST = 8  # dicts in dicts
_HEAD = re.compile(r"peers\.heads\.(\d+)\.")


def start_from(network: Network, file: Path, image_size: tuple[int, int] | None = None) -> None:
    """Loads the weights in a file into a network, and logs one line on what was not simply loaded.

    The weights may lie in dicts (`state_dict`, `model_ema`, ...), and their names may begin with
    those of modules around the network (`module.`, `backbone.`, ...). Only a classifier may be
    absent or of other classes: it keeps its random weights. Position embeddings of another size
    are resampled.

    Args:
        network: the network that will be trained.
        file: a student of a run, the weights of a run, or weights of the same architecture under
            the names of its own library: .safetensors, or a file that torch.save wrote. FILE#NAME
            chooses those under a name, such as run/weights.safetensors#peer0.
        image_size: height and width of the images in pixels, which position embeddings follow.
            Default: square images.

    Raises:
        InputError: the file is absent, damaged, of another architecture, or holds weights that fit
            more than once.
    """
    path, choice = split_choice(file)
    said = load_fitting(network, _read(path), str(path), choice, image_size)
    if said:
        note(f"{path}: {said}")


def split_choice(file: Path) -> tuple[Path, str]:
    """The path and the name in FILE#NAME; the name is empty where none is given."""
    path, _, choice = str(file).rpartition("#")
    return (file, "") if file.exists() or not path else (Path(path), choice)


def parts_of(file: Path) -> tuple[int, list[str]]:
    """The number of peers in a run's weights*.safetensors, and the method's own parts beside them.

    Of other files: 0, and nothing.
    """
    if not file.is_file() or not is_safetensors(file):
        return 0, []
    with reading(file, "safetensors file"), safe_open(file, "pt") as opened:
        names = opened.keys()
    peers = len({head[1] for name in names if (head := _HEAD.match(name))})
    parts = {name.split(".")[0] for name in names} - {"peers"}
    return peers, sorted(parts) if peers else []


def renew_equal_classifiers(networks: Sequence[Network]) -> None:
    """Draws the last layer of a network again if an earlier one has the same weights.

    Peers that begin equal and see the same images stay equal, and have nothing to teach.
    """
    for k, network in enumerate(networks):
        own = network.original_state_dict()
        for other in (n.original_state_dict() for n in networks[:k]):
            if own.keys() == other.keys() and all(torch.equal(own[n], other[n]) for n in own):
                for layer in classifiers(network):
                    layer.reset_parameters()
                break


def classifiers(network: Network) -> list[nn.Linear | nn.Conv2d]:
    """The layers with one output per class: those of the head, else those of the network."""
    kinds = nn.Linear | nn.Conv2d
    for part in (network.head, network):
        layers = [m for m in part.modules() if isinstance(m, kinds)]
        layers = [m for m in layers if len(m.weight) == network.num_classes]
        if layers:
            return layers
    return []


def reorder_classes(
    network: Network, order: Sequence[int], image_size: tuple[int, int] = (32, 32)
) -> bool:
    """Puts the classes of a network into another order: logit i becomes logit order[i] of before.

    Args:
        network: the network; its last layers are changed.
        order: the present place of each class.
        image_size: height and width of the images in pixels that it is tried on.

    Returns:
        whether the logits of random images are those of before in the new order.
    """
    images = torch.randn(2, 3, *image_size, generator=torch.Generator().manual_seed(0))
    training = network.training
    with torch.no_grad():
        before = network.eval()(images)[:, order]
        for layer in classifiers(network):
            for x in layer.parameters():
                x.copy_(x[order])
        after = network(images)
    network.train(training)
    return torch.allclose(before, after, rtol=1e-3, atol=1e-4)


def load_fitting(
    network: Network,
    found: Mapping[str, Tensor],
    where: str,
    choice: str = "",
    image_size: tuple[int, int] | None = None,
) -> str:
    """Loads the tensors that are a network's weights, wherever their names begin.

    Args:
        network: the network.
        found: tensors by name.
        where: the file, for messages.
        choice: the beginning of the names to take, where several fit.
        image_size: as for `start_from`.

    Returns:
        what was not simply loaded, for a note; empty if there is nothing to say.

    Raises:
        InputError: no tensors fit, or those under several beginnings do.
    """
    fit = _Fit(network, found, image_size)
    prefix = fit.choose(where, choice)
    state, left_over = fit.state(prefix), fit.left_over(prefix)
    wrong = fit.wrong(state) | {n: "does not belong to it" for n in left_over if fit.inside(n)}
    if wrong:
        name = min(wrong)
        raise InputError(
            f"{where} does not hold the weights of this network: {name} {wrong[name]}, and "
            f"{len(wrong) - 1} more do not fit: give weights of the same architecture and size of "
            "images"
        )
    for name, x in state.items():
        if not x.to(fit.own[name].dtype).isfinite().all():
            raise InputError(f"{where} holds a weight that is not finite: {name}")
    network.load_state_dict(network.from_original(state), strict=False)

    new = [n for n in fit.own if n not in state and not _is_counter(n)]
    resampled = [n for n in state if state[n] is not fit.under(prefix)[n]]
    said = [f"the weights are those under {prefix!r}"] if prefix else []
    said += [f"not loaded, and drawn anew: {', '.join(new)}"] if new else []
    said += [f"resampled to this size of images: {_some(resampled)}"] if resampled else []
    said += [f"not used: {_some(left_over)}"] if left_over else []
    return "; ".join(said)


class _Fit:
    """How the tensors of a file fit a network.

    Args:
        network: the network.
        found: the tensors of the file by name.
        image_size: height and width of the images in pixels. Default: square images.
    """

    def __init__(
        self, network: Network, found: Mapping[str, Tensor], image_size: tuple[int, int] | None
    ):
        self.own = network.original_state_dict()
        self.found = {_plain(name): x for name, x in found.items()}
        ours = {network.names.get(name, name): name for name in network.state_dict()}
        self._names = {_plain(our): name for name, our in ours.items()}
        self._names |= {_plain(name): name for name in self.own}
        self._fitting: list[str] = []
        self._reduction, self._image_size = network.reductions[-1], image_size
        last = {id(p) for layer in classifiers(network) for p in layer.parameters()}
        named = network.named_parameters()
        self.classifier = {network.names.get(name, name) for name, p in named if id(p) in last}
        self.needed = {n for n in self.own if n not in self.classifier and not _is_counter(n)}

    def choose(self, where: str, choice: str) -> str:
        """The beginning of the names of the tensors to load."""
        counts: Counter[str] = Counter()
        for name in self.found:
            for prefix, rest in _cuts(name):
                counts[prefix] += self._names.get(rest) in self.needed
        choice = _plain(choice)
        if choice:
            chosen = {p: n for p, n in counts.items() if f"{p}.".startswith(f"{choice}.")}
            if not chosen:
                there = _some(sorted({name.split(".")[0] for name in self.found}))
                raise InputError(f"{where} holds no weights under {choice!r}: there are {there}")
            counts = Counter(chosen)
        whole = [p for p, n in counts.items() if n == len(self.needed)]
        self._fitting = [p for p in whole if not self.wrong(self.state(p))]
        different = [
            p
            for i, p in enumerate(self._fitting)
            if not any(self._equal(p, q) for q in self._fitting[:i])
        ]
        if len(different) > 1:
            ways = " or ".join(f"{where}#{p}" if p else where for p in different)
            raise InputError(
                f"{where} holds weights that fit more than once, under "
                f"{' and '.join(map(repr, different))}: choose by {ways}"
            )
        if self._fitting:
            return self._fitting[0]
        prefix, most = max(counts.items(), key=lambda pair: pair[1], default=("", 0))
        if 2 * most < len(self.needed) or not most:
            there, here = next(iter(self.found), "nothing"), next(iter(self.own), "nothing")
            raise InputError(
                f"{where} does not hold the weights of this network: {most} of its "
                f"{len(self.needed)} are there. The file begins with {there}, the network with "
                f"{here}: give weights of the same architecture"
            )
        return prefix

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a beginning of names, by the network's names where it has them."""
        begins = f"{prefix}." if prefix else ""
        others = tuple(f"{p}." for p in self._fitting if len(p) > len(prefix))
        names = [n for n in self.found if n.startswith(begins) and not n.startswith(others)]
        rests = {name: name[len(begins) :] for name in names}
        return {self._names.get(rest, rest): self.found[name] for name, rest in rests.items()}

    def state(self, prefix: str) -> dict[str, Tensor]:
        """What can be loaded of them, resampled, without a classifier of other classes."""
        there = {n: x for n, x in self.under(prefix).items() if n in self.own}
        there = {n: self._resampled(n, x) for n, x in there.items()}
        return {
            n: x
            for n, x in there.items()
            if n not in self.classifier or not _misfit(x, self.own[n])
        }

    def wrong(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """What is wrong with a state, by the names of the weights."""
        wrong = {n: "is absent" for n in self.needed - state.keys()}
        return wrong | {n: why for n, x in state.items() if (why := _misfit(x, self.own[n]))}

    def left_over(self, prefix: str) -> list[str]:
        """The names under a beginning that the network does not have."""
        return [n for n in self.under(prefix) if n not in self.own and not _is_counter(n)]

    def inside(self, name: str) -> bool:
        """Whether a name lies in a part of the network that is not its classifier."""
        first = name.split(".")[0]
        if any(first == n.split(".")[0] for n in self.classifier):
            return any(name.startswith(f"{n.rpartition('.')[0]}.") for n in self.needed)
        return first.isdigit() or any(first == n.split(".")[0] for n in self.own)

    def _equal(self, one: str, other: str) -> bool:
        a, b = self.state(one), self.state(other)
        return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)

    def _resampled(self, name: str, x: Tensor) -> Tensor:
        """Position embeddings of another size of images, in the size of the network's."""
        like, last = self.own[name], name.rpartition(".")[2]
        if x.shape == like.shape or not x.is_floating_point():
            return x
        if last in _BIASES and x.ndim == like.ndim == 2:  # (places, heads)
            grid, old = _square(len(like)), _square(len(x))
            return _resample(x[None], 0, old, grid)[0] if grid and old else x
        if last in _POSITIONS and x.ndim == like.ndim == 3:
            for tokens in range(_MOST_PREFIX_TOKENS + 1):
                grid, old = self._grid(like.shape[1] - tokens), _square(x.shape[1] - tokens)
                if grid and old:
                    return _resample(x, tokens, old, grid)
        return x

    def _grid(self, places: int) -> tuple[int, int] | None:
        """The height and the width of a map of so many places."""
        if self._image_size is None:
            return _square(places)
        height, width = (side // self._reduction for side in self._image_size)
        return (height, width) if height * width == places else None


def _resample(x: Tensor, tokens: int, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Embeddings (1, tokens + places, D) on another grid, by bicubic interpolation as in timm."""
    maps = x[:, tokens:].float().unflatten(1, old).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=new, mode="bicubic", antialias=True)
    return torch.cat([x[:, :tokens], maps.flatten(2).transpose(1, 2).to(x.dtype)], dim=1)


def _square(n: int) -> tuple[int, int] | None:
    side = math.isqrt(max(n, 0))
    return (side, side) if side * side == n > 0 else None


def _misfit(x: Tensor, like: Tensor) -> str:
    """Why a tensor cannot be the weight `like`; empty if it can."""
    if x.shape != like.shape:
        return f"has the shape {tuple(x.shape)}, not {tuple(like.shape)}"
    if like.is_floating_point() and not x.is_floating_point():
        return f"holds whole numbers ({x.dtype})"
    return ""


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in _COUNTERS


def _plain(name: str) -> str:
    """A name without the wrappers in it; as torchvision spells those of its first DenseNets."""
    name = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name)


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Every way to cut a name into its beginning and the rest, at its dots."""
    parts = name.split(".")
    for i in range(len(parts)):
        yield ".".join(parts[:i]), ".".join(parts[i:])


def _some(names: Sequence[str]) -> str:
    few = ", ".join(names[:5])
    return few if len(names) <= 5 else f"{few} and {len(names) - 5} more"


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; the names of dicts around them come first."""
    if not file.exists():
        raise InputError(f"weights: there is no file {file}")
    if file.is_dir():
        there = [
            p.name for e in ("safetensors", "pt", "pth", "bin", "ckpt") for p in file.glob(f"*.{e}")
        ]
        has = f"one of {_some(sorted(there))}" if there else "a file of weights"
        raise InputError(f"weights: {file} is a folder: give {has} in it")
    if is_safetensors(file):
        return _by_peer(read_weights(file)[0])
    found: dict[str, Tensor] = {}
    models: list[str] = []
    _flatten(read_pickled(file), "", 0, found, models)
    if not found and models:
        raise InputError(
            f"{file} holds a whole pickled model ({models[0]}), not its weights, and nothing in it "
            "is executed: where it was made, write torch.save(model.state_dict(), FILE)"
        )
    if not found:
        raise InputError(f"{file} holds no state dict: give names and tensors")
    return found


def _flatten(
    content: Any, name: str, depth: int, found: dict[str, Tensor], models: list[str]
) -> None:
    """Puts the tensors in nested dicts into `found`, and the classes of pickled models, too."""
    if isinstance(content, Tensor) and name:
        found[name] = content
    elif isinstance(content, Other) and "_modules" in content:
        models.append(content.name)
    elif isinstance(content, dict) and depth < _DEEPEST:
        for key, value in content.items():
            if isinstance(key, str):
                _flatten(value, f"{name}.{key}" if name else key, depth + 1, found, models)


def _by_peer(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a run, under peer0, peer1 and so on, each with the trunk; others unchanged."""
    peers = sorted({int(head[1]) for name in tensors if (head := _HEAD.match(name))})
    if not peers:
        return tensors
    stages = {name.split(".")[2] for name in tensors if name.startswith("peers.trunk.")}
    found: dict[str, Tensor] = {}
    for name, x in tensors.items():
        part, _, rest = name.removeprefix("peers.").partition(".")
        k, _, inner = rest.partition(".")
        if part == "trunk":
            found |= {f"peer{peer}.stages.{rest}": x for peer in peers}
        elif part == "branches":
            stage, _, weight = inner.partition(".")
            found[f"peer{k}.stages.{int(stage) + len(stages)}.{weight}"] = x
        elif part == "heads":
            found[f"peer{k}.head.{inner}"] = x
        else:
            found[name] = x
    return found
