"""The student that a run ships: the file of it, its classes, and how it reads an image file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codistill.data.batches.photograph import load_image
from codistill.methods.method import Method
from codistill.networks.student import read_student, save_student
from codistill.settings.build_data import Data
from codistill.settings.config import Config
from codistill.training.device import device_of


@dataclass(frozen=True)
class Student:
    """A trained network that classifies image files.

    Attributes:
        network: the network in eval mode; it takes images (B, 3, H, W), normalised as
            `(pixel - mean) / std`. `student.network.to("cuda")` moves it. That of `load_student`
            is a `Network`.
        about: facts that the file holds: "network" (its name), "classes" and, where a run wrote it,
            "mean" and "std" (per channel, for pixels of 0 to 255), "image_size", "crop" (see
            `load_image`), "method", "classifier" (its name in the report), "peer" (its number).
    """

    network: nn.Module
    about: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the C classes, in the order of the logits."""
        return tuple(self.about["classes"])

    def image(self, image: Path | str | bytes) -> Float[Tensor, "1 3 H W"]:
        """An image file of any kind and size, cropped, resized and normalised as in evaluation."""
        return load_image(image, self.about)

    def __call__(
        self, image: Path | str | bytes | Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B C"]:
        """The logits of an image file, (1, C), or of images that are normalised already, (B, C).

        An image file is its path or its bytes.

        It computes no gradients. Call `student.network` for gradients.

        Raises:
            InputError: the file cannot be read, or the student's file does not say how images are
                normalised.
        """
        images = image if isinstance(image, Tensor) else self.image(image)
        with torch.inference_mode():
            return self.network(images.to(device_of(self.network)))

    def probabilities(self, image: Path | str | bytes) -> dict[str, float]:
        """The probability of every class for an image file, the largest first."""
        of_class = zip(self.classes, self(image)[0].softmax(dim=0).tolist(), strict=True)
        return dict(sorted(of_class, key=lambda pair: -pair[1]))


def load_student(path: Path | str, trust_code: bool = False) -> Student:
    """Reads a student: `student("cat.jpg")` returns logits, `student.network` is the network.

    Args:
        path: the file that `save_student` or a run wrote.
        trust_code: whether to import and call the code that the file names. This is needed if the
            network was given as `package.module:callable`.

    Raises:
        InputError: the file holds no student, is damaged, or names code that is not trusted.
    """
    return Student(*read_student(path, trust_code))


def write_student(
    path: Path, method: Method, classifier: str, epoch: int, config: Config, data: Data
) -> None:
    """Writes a classifier of a run, with all that `load_student` reads.

    Args:
        path: file to write.
        method: has the weights.
        classifier: its name in `Method.students`.
        epoch: epoch of the weights, from 1.
        config: settings of the run.
        data: data of the run.
    """
    kept = method.students()[classifier]
    about = {
        "epoch": epoch,
        "method": config.method["name"],
        "classifier": classifier,
        "peer": kept.k,
        "network": config.networks()[kept.k],
        "classes": list(data.classes),
        "mean": list(data.normalisation.mean),
        "std": list(data.normalisation.std),
        "image_size": list(data.image_size),
        "crop": data.crop,
        "bits": data.settings.bits,
    }
    save_student(path, kept.network(), about)
