"""Tensors by name fitted to a network: where its weights begin, and what is left over."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from codistill.errors import InputError
from codistill.messages import shorten
from codistill.networks.classifier import classifiers, renew_large_classifiers
from codistill.networks.network import Network
from codistill.networks.positions import resampled

_WRAPPERS = {"module", "_orig_mod"}  # of DataParallel and torch.compile, anywhere in a name
_COUNTERS = {  # buffers that change nothing that a network computes from its weights
    "num_batches_tracked",
    "total_ops",
    "total_params",
    "n_averaged",
    "attn_mask",
    "relative_position_index",
}


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
    (prefix, state), *others = fit.states(where, choice).items()
    left_over = fit.left_over(prefix, [p for p, _ in others])
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
    if fit.classifier & set(new):
        renew_large_classifiers(network)
    under = fit.under(prefix)
    changed = [n for n, x in state.items() if x is not under[n]]
    said = [f"the weights are those under {prefix!r}"] if prefix else []
    said += [f"not loaded, and drawn anew: {', '.join(new)}"] if new else []
    said += [f"resampled to this size of images: {shorten(changed)}"] if changed else []
    said += [f"not used: {shorten(left_over)}"] if left_over else []
    return "; ".join(said)


class _Fit:
    """How the tensors of a file fit a network.

    Args:
        network: the network.
        found: the tensors of the file by name.
        image_size: height and width of the images in pixels. Default: square images.

    Attributes:
        own: weights and buffers of the network, under the names of its library.
        classifier: the names of those of its last layer, which may be absent.
        needed: the names of those that may not.
    """

    def __init__(
        self, network: Network, found: Mapping[str, Tensor], image_size: tuple[int, int] | None
    ):
        self.own = network.original_state_dict()
        self._found = {_plain(name): x for name, x in found.items()}
        ours = {_plain(name): network.names.get(name, name) for name in network.state_dict()}
        self._names = ours | {_plain(name): name for name in self.own}
        self._reduction, self._image_size = network.reductions[-1], image_size
        last = {id(p) for layer in classifiers(network) for p in layer.parameters()}
        named = network.named_parameters()
        self.classifier = {network.names.get(name, name) for name, p in named if id(p) in last}
        self.needed = {n for n in self.own if n not in self.classifier and not _is_counter(n)}

    def states(self, where: str, choice: str) -> dict[str, dict[str, Tensor]]:
        """What can be loaded, by the beginning of its names in the file; the first is to be.

        Those that fit are equal. Where none fits, it is that under which the most weights are.
        """
        counts = self._counts(where, _plain(choice))
        whole = {p: self._state(p) for p, n in counts.items() if n == len(self.needed)}
        fitting = {p: state for p, state in whole.items() if not self.wrong(state)}
        different: dict[str, dict[str, Tensor]] = {}
        for prefix, state in fitting.items():
            if not any(_equal(state, other) for other in different.values()):
                different[prefix] = state
        if len(different) > 1:
            ways = " or ".join(f"{where}#{p}" if p else where for p in different)
            raise InputError(
                f"{where} holds weights that fit more than once, under "
                f"{' and '.join(map(repr, different))}: choose by {ways}"
            )
        if fitting:
            return fitting
        prefix, most = max(counts.items(), key=lambda pair: pair[1], default=("", 0))
        if 2 * most < len(self.needed) or not most:
            there, here = next(iter(self._found), "nothing"), next(iter(self.own), "nothing")
            raise InputError(
                f"{where} does not hold the weights of this network: {most} of its "
                f"{len(self.needed)} are there. The file begins with {there}, the network with "
                f"{here}: give weights of the same architecture"
            )
        return {prefix: self._state(prefix)}

    def _counts(self, where: str, choice: str) -> dict[str, int]:
        """How many of the needed weights have their names under each beginning that is chosen."""
        counts: Counter[str] = Counter()
        for name in self._found:
            for prefix, rest in _cuts(name):
                counts[prefix] += self._names.get(rest) in self.needed
        if not choice:
            return counts
        chosen = {p: n for p, n in counts.items() if f"{p}.".startswith(f"{choice}.")}
        if not chosen:
            there = shorten(sorted({name.split(".")[0] for name in self._found}))
            raise InputError(f"{where} holds no weights under {choice!r}: there are {there}")
        return chosen

    def under(self, prefix: str, others: Sequence[str] = ()) -> dict[str, Tensor]:
        """The tensors under a beginning of names, by the network's names where it has them.

        Args:
            prefix: the beginning.
            others: longer beginnings, whose tensors are left out.
        """
        begins = f"{prefix}." if prefix else ""
        out = tuple(f"{p}." for p in others)
        names = [n for n in self._found if n.startswith(begins) and not n.startswith(out)]
        rests = {name: name[len(begins) :] for name in names}
        return {self._names.get(rest, rest): self._found[name] for name, rest in rests.items()}

    def _state(self, prefix: str) -> dict[str, Tensor]:
        """What can be loaded of them, resampled, without a classifier of other classes."""
        there = {
            n: resampled(n, x, self.own[n], self._reduction, self._image_size)
            for n, x in self.under(prefix).items()
            if n in self.own
        }
        return {
            n: x
            for n, x in there.items()
            if n not in self.classifier or not _misfit(x, self.own[n])
        }

    def wrong(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """What is wrong with a state, by the names of the weights."""
        wrong = {n: "is absent" for n in self.needed - state.keys()}
        return wrong | {n: why for n, x in state.items() if (why := _misfit(x, self.own[n]))}

    def left_over(self, prefix: str, others: Sequence[str]) -> list[str]:
        """The names under a beginning that the network does not have, outside of `others`."""
        names = self.under(prefix, others)
        return [n for n in names if n not in self.own and not _is_counter(n)]

    def inside(self, name: str) -> bool:
        """Whether a name lies in a part of the network that is not its classifier."""
        first = name.split(".")[0]
        if any(first == n.split(".")[0] for n in self.classifier):
            return any(name.startswith(f"{n.rpartition('.')[0]}.") for n in self.needed)
        return first.isdigit() or any(first == n.split(".")[0] for n in self.own)


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(x, other[n]) for n, x in one.items())


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
