"""Grad-CAM, computed by captum: the places of an image that a classifier looks at.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra: Grad-CAM: Visual Explanations from Deep Networks
via Gradient-based Localization, ICCV 2017, equations 1 and 2.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from codistill.analysis.map_places import MapPlace, map_of_network, maps_of_peers
from codistill.analysis.predictions import EvalSet, Predictions
from codistill.data import Normalisation
from codistill.errors import InputError
from codistill.importing import optional
from codistill.methods.method import Method
from codistill.methods.modes import eval_mode
from codistill.networks.peers import Kept
from codistill.training.device import device_of, random_numbers_kept


@dataclass(frozen=True)
class HeatMap:
    """The places of an image that speak for a classifier's first guess.

    Attributes:
        classifier: name of the classifier.
        guess: class of its first guess, 0 to C - 1.
        probability: probability that it gives to the guess, 0 to 1.
        heat: importance of each place, (H, W), 0 to 1; the largest is 1, unless all are 0.
        blank: whether all are 0: no place speaks for the guess, or the head reads nothing but a
            class token.
    """

    classifier: str
    guess: int
    probability: float
    heat: Float[np.ndarray, "H W"]
    blank: bool


@dataclass(frozen=True)
class Picture:
    """An image with the heat maps of the classifiers.

    Attributes:
        index: place of the image in its split.
        label: class of the image, 0 to C - 1.
        image: pixels as the networks see them, but not normalised: (H, W, 3), RGB, 0 to 255.
        heat_maps: heat maps of the classifiers, in their order. The ensemble and the method's own
            classifiers read the maps of all peers, so their heat map is that of these maps side by
            side as one. A leader, which is one of the peers, and a teacher have none.
    """

    index: int
    label: int
    image: UInt8[np.ndarray, "H W 3"]
    heat_maps: tuple[HeatMap, ...]


def disagreements(predictions: Predictions, first: str, second: str | None, n: int) -> list[int]:
    """Places in the split of up to n images on which two classifiers disagree; always the same.

    First come, in turns, an image that only the second classifier is right about and one that only
    the first is right about, in order of the sum of both confidences. Then come images that both
    are wrong about, with different guesses. Without a second classifier, these are the images that
    the first is wrong about, in order of its confidence.
    """
    one = predictions.right(first)
    if second is None:
        groups = [~one]
        sure = predictions.of[first].confidence
    else:
        two = predictions.right(second)
        differ = predictions.of[first].guess != predictions.of[second].guess
        groups = [two & ~one, one & ~two, differ & ~one & ~two]
        sure = predictions.of[first].confidence + predictions.of[second].confidence
    order = sure.argsort(descending=True, stable=True)
    gained, *rest = ([i for i in order.tolist() if group[i]] for group in groups)
    lost, both = rest or ([], [])
    turns = chain.from_iterable(zip_longest(gained, lost))
    chosen = [i for i in (*turns, *both) if i is not None]
    return predictions.index[chosen[:n]].tolist()


def grad_cam(method: Method, batches: EvalSet, index: Sequence[int]) -> tuple[Picture, ...]:
    """Heat maps of every classifier for the images at these places of a split.

    Each heat map is that of the classifier's own first guess. A peer's is taken at its last feature
    map.

    Raises:
        InputError: there is no such place, the image there is broken, or a network returns a map
            that its logits do not come from.
        MissingExtraError: captum is not installed.
    """
    outside = [i for i in index if not 0 <= i < len(batches.split)]
    if outside:
        raise InputError(
            f"there is no image {outside[0]}: there are {len(batches.split):,}, from 0"
        )
    chosen = batches.take(torch.tensor(index, dtype=torch.int64))
    pictures: list[Picture] = []
    with eval_mode(method), random_numbers_kept(device_of(method)):
        for batch in chosen:
            pixels = to_pixels(batch.views[0], chosen.normalisation)
            maps = list(zip(*heat_maps(method, batch.views[0]), strict=True))
            pictures += [
                Picture(-1, label, image, heat_maps)
                for label, image, heat_maps in zip(
                    batch.labels.tolist(), pixels.cpu().numpy(), maps, strict=True
                )
            ]
    if len(pictures) < len(index):
        unbroken = chosen.unbroken().tolist()
        broken = next(i for place, i in enumerate(index) if place not in unbroken)
        raise InputError(f"image {broken} is broken")
    return tuple(replace(picture, index=i) for picture, i in zip(pictures, index, strict=True))


def to_pixels(
    images: Float[Tensor, "B 3 H W"], normalisation: Normalisation
) -> UInt8[Tensor, "B H W 3"]:
    """Normalised images as pixels again: the inverse of `normalisation`."""
    mean, std = torch.tensor([normalisation.mean, normalisation.std], device=images.device)
    return (images.permute(0, 2, 3, 1) * std + mean).round().clamp(0, 255).to(torch.uint8)


def heat_maps(method: Method, images: Float[Tensor, "B 3 H W"]) -> Iterator[list[HeatMap]]:
    """For every classifier that has heat maps, the heat map of each image."""
    alone = method.students()
    alone |= {f"peer{k}": Kept(method.peers, k) for k in range(len(method.peers))}
    with torch.enable_grad():
        all_logits = method([images]).classifiers
    for name, logits in all_logits.items():
        if name in alone:
            kept = alone[name]
            if kept.peers is method.peers and name != f"peer{kept.k}":
                continue  # a leader: it is one of the peers
            network = kept.network().eval()
            maps = [map_of_network(network, images)]
            cam = _cam(network, maps, images, logits.argmax(dim=1))
        elif logits.requires_grad:

            def classify(x: Tensor, name: str = name) -> Tensor:
                return method([x]).classifiers[name]

            cam = _cam(classify, maps_of_peers(method.peers, images), images, logits.argmax(dim=1))
        else:
            continue  # a teacher, which reads no peer's map
        yield _as_heat_maps(name, logits.detach().softmax(dim=1), cam)


def _as_heat_maps(name: str, p: Float[Tensor, "B C"], cam: Float[Tensor, "B H W"]) -> list[HeatMap]:
    most = cam.amax(dim=(1, 2), keepdim=True)
    heat = (cam / most.where(most > 0, 1)).cpu().numpy()
    facts = zip(p.argmax(dim=1).tolist(), p.amax(dim=1).tolist(), heat, strict=True)
    return [HeatMap(name, guess, top, x, blank=not x.any()) for guess, top, x in facts]


def _cam(
    classify: Callable[[Tensor], Tensor],
    maps: Sequence[MapPlace],
    images: Float[Tensor, "B 3 H W"],
    guesses: Int64[Tensor, "B"],
) -> Float[Tensor, "B H W"]:
    """Grad-CAM of several maps side by side as one, at the size of the images; not scaled.

    Grad-CAM weights each channel of every map with its mean gradient and adds them up. Negative
    sums become 0.
    """
    attr = optional("captum.attr", "Grad-CAM")
    height, width = images.shape[2:]
    total = images.new_zeros(len(images), 1, height, width)
    for one in maps:
        with one.passed_on(height, width) as layer:
            cam = attr.LayerGradCam(classify, layer).attribute(
                images,
                target=guesses,
                relu_attributions=False,
                # a map that the classifier does not read has gradient 0
                grad_kwargs={"allow_unused": True, "materialize_grads": True},
            )
        # In maps of several sizes each place counts for its share of the image.
        places = cam.shape[2] * cam.shape[3]
        cam = attr.LayerAttribution.interpolate(cam.detach(), (height, width), "bilinear")
        total += places * cam
    return total[:, 0].relu()
