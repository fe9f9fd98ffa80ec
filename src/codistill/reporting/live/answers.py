"""What every classifier of a model says of a photograph, and where it looks."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from codistill.analysis.grad_cam import HeatMap, heat_maps, to_pixels
from codistill.data.batches.photograph import side_of
from codistill.data.normalisation import Normalisation
from codistill.errors import InputError, MissingExtraError
from codistill.files import place_of
from codistill.methods.method import Method
from codistill.methods.modes import eval_mode
from codistill.reporting.page.photographs import photograph
from codistill.runs.classifier import SHIPS, open_classifier, shipped
from codistill.runs.run import STUDENT
from codistill.training.device import device_of, random_numbers_kept

TOP = 5
"""Classes that each classifier names."""


class Answers:
    """The classifiers of a run, a student's file or an export: `answers(image)`.

    Args:
        model: folder of a run or of an export, or a file that a run wrote as student.safetensors.
        device: device to compute on; auto: a GPU if there is one.
        trust_code: whether to import code that the model names as package.module:name.

    Attributes:
        note: why only the student of a run answers; "" where all classifiers do.

    Raises:
        InputError: there is no such model, or it is damaged or not trusted.
    """

    def __init__(self, model: Path | str, device: str = "auto", trust_code: bool = False):
        self.student = open_classifier(model, device=device, trust_code=trust_code)
        side_of(self.student.about)  # says so now if the file does not
        self.method: Method | None = None
        self.ships = SHIPS
        self.note = ""
        path = place_of(model)
        if path.is_dir() and (path / STUDENT).exists():
            try:
                run, scores = shipped(path, device, trust_code)
            except InputError as error:
                self.note = f"only the student answers: {error}"
            else:
                self.method, self.ships = run.method, scores.kept[0]

    def __call__(self, image: bytes) -> dict[str, Any]:
        """The answers as the page shows them.

        Args:
            image: bytes of an image's file.

        Returns:
            "note": what the reader should know, or ""; "classifiers": for each its "name",
            "classes", each with "class" and "probability", "heat", the heat map as a data URI or
            "", and "about", a remark or "".

        Raises:
            InputError: the image is broken.
        """
        images = self.student.image(image)
        note, heat = self.note, dict[str, HeatMap]()
        if self.method is None:
            logits = {SHIPS: self.student(images)}
        else:
            images = images.to(device_of(self.method))
            with eval_mode(self.method), torch.no_grad():
                logits = dict(self.method([images]).classifiers)
            try:
                heat = self._heat(self.method, images)
            except (MissingExtraError, InputError) as error:
                note = f"no heat maps: {error}"
        mean, std = (self.student.about[key] for key in ("mean", "std"))
        pixels = to_pixels(images, Normalisation(mean, std))[0].cpu().numpy()
        return {
            "note": note,
            "classifiers": [
                {
                    "name": name,
                    "classes": self._top(x[0]),
                    "heat": photograph(pixels, heat[name].heat) if name in heat else "",
                    "about": self._about(name, heat.get(name)),
                }
                for name, x in logits.items()
            ],
        }

    def _heat(self, method: Method, images: Float[Tensor, "1 3 H W"]) -> dict[str, HeatMap]:
        with eval_mode(method), random_numbers_kept(device_of(method)):
            return {one.classifier: one for (one,) in heat_maps(method, images)}

    def _top(self, logits: Float[Tensor, "C"]) -> list[dict[str, Any]]:
        classes = self.student.classes
        shares, places = logits.softmax(dim=0).topk(min(TOP, len(classes)))
        return [
            {"class": classes[i], "probability": p}
            for i, p in zip(places.tolist(), shares.tolist(), strict=True)
        ]

    def _about(self, name: str, heat: HeatMap | None) -> str:
        ships = "this one ships" if self.method and name == self.ships else ""
        blank = "no place speaks for the first class" if heat and heat.blank else ""
        return "; ".join(filter(None, (ships, blank)))
