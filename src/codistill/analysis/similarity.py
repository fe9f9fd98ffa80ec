"""How alike the feature maps of two peers are.

Linear CKA (Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited,
ICML 2019) from batches, with the unbiased estimator of HSIC: equations 2 and 3 of Nguyen, Raghu,
Kornblith: Do Wide and Deep Networks Learn the Same Things?, ICLR 2021; equation 5 of Song, Smola,
Gretton, Bedo, Borgwardt: Feature Selection via Dependence Maximization, JMLR 2012.
"""

from dataclasses import dataclass

from codistill.analysis.predictions import Batches
from codistill.method import Method


@dataclass(frozen=True)
class MapSimilarity:
    """Two peers after a stage each.

    Attributes:
        first, second: names of the peers, such as "peer0".
        first_stage, second_stage: after how many stages, from 1.
        last: whether these are the maps that their heads read.
        cka: linear CKA of the flattened maps: 1 for maps that a rotation and a scale make equal,
            about 0 for unrelated ones (slightly negative is possible: the estimate is unbiased).
        cosine: mean over images of the cosine between the two flattened maps of one image; None
            where the shapes differ, and before the last stage.
        cosine_other_images: the same between maps of different images: what `cosine` would be if
            the maps said nothing about the image. Maps after ReLU are never far from each other.
    """

    first: str
    second: str
    first_stage: int
    second_stage: int
    last: bool
    cka: float
    cosine: float | None
    cosine_other_images: float | None


@dataclass(frozen=True)
class Similarities:
    """Every pair of peers, after every stage that can be compared.

    Attributes:
        images: how many were looked at.
        available: how many there are.
        shared: the first stages that all peers have in common, whose maps are the same and left
            out.
        pairs: in the order of the peers and of the stages.
        notes: what was left out and why, one line each.
    """

    images: int
    available: int
    shared: int
    pairs: tuple[MapSimilarity, ...]
    notes: tuple[str, ...]


def map_similarities(method: Method, batches: Batches, images: int = 2000) -> Similarities:
    """How alike the maps of every two peers are, on images drawn once and for all from a split.

    Stage is compared with stage where both peers have as many; else only the last stages.

    Raises:
        InputError: there is one peer, or all stages are shared.
    """
    raise NotImplementedError
