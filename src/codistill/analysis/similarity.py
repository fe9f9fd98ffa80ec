"""Similarity of the feature maps of two peers.

Linear CKA (Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited,
ICML 2019) from batches, with the unbiased estimator of HSIC: equations 2 and 3 of Nguyen, Raghu,
Kornblith: Do Wide and Deep Networks Learn the Same Things?, ICLR 2021; equation 5 of Song, Smola,
Gretton, Bedo, Borgwardt: Feature Selection via Dependence Maximization, JMLR 2012.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from codistill.analysis.predictions import EvalSet
from codistill.errors import InputError
from codistill.methods.method import Method
from codistill.methods.modes import eval_mode
from codistill.networks.peers import Peers
from codistill.training.device import device_of, random_numbers_kept

_FEWEST = 4  # images in a batch, for an unbiased estimate

_Place = tuple[int, int]
"""A peer and a stage, both from 0."""


@dataclass(frozen=True)
class MapSimilarity:
    """The similarity of two peers, each after one of its stages.

    Attributes:
        first, second: names of the peers, such as "peer0".
        first_stage, second_stage: number of stages before the map, from 1.
        last: whether these are the maps that their heads read.
        cka: linear CKA of the flattened maps: 1 for maps that a rotation and a scale make equal,
            about 0 for unrelated ones (slightly negative is possible: the estimate is unbiased).
            None if a map is the same for all images.
        cosine: mean over images of the cosine between the two flattened maps of one image; None
            if the shapes differ, and before the last stage.
        cosine_other_images: the same between maps of different images: the value of `cosine` if
            the maps said nothing about the image. It is high after a ReLU.
    """

    first: str
    second: str
    first_stage: int
    second_stage: int
    last: bool
    cka: float | None
    cosine: float | None
    cosine_other_images: float | None


@dataclass(frozen=True)
class Similarities:
    """Every pair of peers, after every stage that can be compared.

    Attributes:
        images: number of images that were used.
        available: number of images in the split.
        shared: number of first stages that all peers share; their maps are the same and left out.
        pairs: pairs of maps, in the order of the peers and of the stages.
        notes: one line for each thing that was left out, with the reason.
    """

    images: int
    available: int
    shared: int
    pairs: tuple[MapSimilarity, ...]
    notes: tuple[str, ...]


def map_similarities(method: Method, batches: EvalSet, images: int = 2000) -> Similarities:
    """Similarity of the maps of every two peers, on images of a split that are always the same.

    Peers with equally many stages are compared stage by stage, others only after the last stage.

    Raises:
        InputError: there is one peer, all stages are shared, or there are fewer than 4 images.
    """
    peers = method.peers
    compared = _compared(peers)
    available = batches.images
    order = torch.randperm(available, generator=torch.Generator().manual_seed(0))
    inner: dict[tuple[_Place, _Place], float] = defaultdict(float)
    cosines: dict[tuple[_Place, _Place], list[Tensor]] = defaultdict(list)
    seen = 0
    with eval_mode(method), torch.inference_mode(), random_numbers_kept(device_of(method)):
        for batch in batches.take(order[:images]):
            if (n := len(batch.labels)) < _FEWEST:
                continue
            out = peers(batch.views)
            maps = {(k, s): out.stages[k][s + 1] for pair in compared for k, s in pair}
            for pair, value in _inner_products(maps, compared).items():
                inner[pair] += value
            for pair in compared:
                if _are_last(peers, pair) and maps[pair[0]].shape == maps[pair[1]].shape:
                    cosines[pair].append(_cosines(*(maps[place] for place in pair)))
            seen += n
    if not seen:
        fewer = min(images, available)
        raise InputError(f"feature maps are compared on {_FEWEST} images or more, not {fewer}")
    return Similarities(
        seen,
        available,
        peers.shared,
        tuple(_similarity(peers, pair, inner, cosines[pair], seen) for pair in compared),
        _notes(peers),
    )


def linear_cka(first: Float[Tensor, "n ..."], second: Float[Tensor, "n ..."]) -> float | None:
    """Linear CKA of two networks' maps of the same n images, as one batch; n is 4 or more."""
    inner = _inner_products({(0, 0): first, (1, 0): second}, [((0, 0), (1, 0))])
    return _cka(inner, ((0, 0), (1, 0)))


def _compared(peers: Peers) -> list[tuple[_Place, _Place]]:
    """The pairs of maps that are compared."""
    if len(peers) < 2:
        raise InputError("there is one peer: its feature maps have nothing to be compared with")
    found: list[tuple[_Place, _Place]] = []
    for (i, first), (j, second) in combinations(enumerate(map(len, peers.channels)), 2):
        if first == second:
            found += [((i, s), (j, s)) for s in range(peers.shared, first)]
        elif peers.shared < max(first, second):
            found.append(((i, first - 1), (j, second - 1)))
    if not found:
        raise InputError("the peers share all stages: their feature maps are the same")
    return found


def _inner_products(
    maps: dict[_Place, Tensor], compared: Sequence[tuple[_Place, _Place]]
) -> dict[tuple[_Place, _Place], float]:
    """Unbiased HSIC times n (n - 3) over a batch, of every pair and of maps with themselves."""
    grams = {place: _centred_gram(x) for place, x in maps.items()}
    pairs = [*compared, *((place, place) for place in maps)]
    return {(a, b): float((grams[a] * grams[b]).sum()) for a, b in pairs}


def _centred_gram(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n n"]:
    """Inner products of n flattened maps, centred so that HSIC of two is their inner product.

    "U-centred" (Székely, Rizzo: Partial Distance Correlation with Methods for Dissimilarities,
    2014): the sum of products of two such matrices is n (n - 3) times the estimator of Song et al.
    It does not depend on the mean map, which goes first because it would cost digits.
    """
    x = x.float().flatten(1)
    x = x - x.mean(dim=0)
    gram = (x @ x.T).cpu().double()
    n = len(gram)
    gram.fill_diagonal_(0)
    rows = gram.sum(dim=1) / (n - 2)
    gram = gram - rows[:, None] - rows + gram.sum() / ((n - 1) * (n - 2))
    return gram.fill_diagonal_(0)


def _cka(inner: dict[tuple[_Place, _Place], float], pair: tuple[_Place, _Place]) -> float | None:
    a, b = pair
    norm = (inner[a, a] * inner[b, b]) ** 0.5
    return inner[a, b] / norm if norm else None


def _cosines(first: Tensor, second: Tensor) -> Float[Tensor, "2"]:
    """Sums over a batch of the cosines between maps of one image, and of different images."""
    first, second = first.float().flatten(1), second.float().flatten(1)
    others = second.roll(1, dims=0)
    return torch.stack([F.cosine_similarity(first, x, dim=1).sum() for x in (second, others)])


def _are_last(peers: Peers, pair: tuple[_Place, _Place]) -> bool:
    return all(s + 1 == len(peers.channels[k]) for k, s in pair)


def _similarity(
    peers: Peers,
    pair: tuple[_Place, _Place],
    inner: dict[tuple[_Place, _Place], float],
    cosines: list[Tensor],
    images: int,
) -> MapSimilarity:
    same, others = (torch.stack(cosines).sum(0) / images).tolist() if cosines else (None, None)
    (i, s), (j, t) = pair
    return MapSimilarity(
        f"peer{i}",
        f"peer{j}",
        s + 1,
        t + 1,
        _are_last(peers, pair),
        _cka(inner, pair),
        same,
        others,
    )


def _notes(peers: Peers) -> tuple[str, ...]:
    notes = []
    if peers.shared:
        stages = "stage is" if peers.shared == 1 else f"{peers.shared} stages are"
        notes.append(f"the first {stages} shared by all peers: the same map, left out")
    counts = [len(channels) for channels in peers.channels]
    if len(set(counts)) > 1:
        notes.append(
            f"the peers have {', '.join(map(str, counts))} stages: if two differ in that, "
            "only their last maps are compared"
        )
    return tuple(notes)
