"""Exports loaded where codistill is not installed, by the code of their cards.

    python benchmarks/exports.py write ours.npz RUN CLASSIFIER IMAGE ...
    elsewhere/bin/python benchmarks/exports.py read ours.npz EXPORT ...

The first line writes codistill's own logits. The second one needs no codistill. For each export it
prints the size of its model, the largest difference of a logit, and how many images have the same
class: first of codistill's pixels, then of the image files as the card's code reads them.
"""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

import numpy as np


def main(arguments: list[str]) -> None:
    what, file, *rest = arguments
    {"write": write, "read": read}[what](Path(file), *rest)


def write(file: Path, run: str, of: str, *images: str) -> None:
    from codistill.runs.classifier import open_classifier

    student = open_classifier(run, of, "cpu")
    pixels = [student.image(image) for image in images]
    logits = [student(one) for one in pixels]
    where = [os.path.abspath(image) for image in images]
    np.savez(file, pixels=np.concatenate(pixels), logits=np.concatenate(logits), images=where)


def read(file: Path, *exports: str) -> None:
    ours = np.load(file)
    logits = ours["logits"]
    print(f"largest logit {abs(logits).max():.3g}")
    for export in exports:
        by_pixels, by_file = by_its_card(Path(export), ours["pixels"], ours["images"])
        model = next(Path(export).glob("model.[!p]*"), Path(export) / "model.pt2")
        found = [f"{model.parent.name}, {model.name} {model.stat().st_size / 1e6:.2f} MB"]
        for name, theirs in (("pixels", by_pixels), ("files", by_file)):
            same = (theirs.argmax(1) == logits.argmax(1)).sum()
            found.append(f"{name} {abs(theirs - logits).max():.2g}, {same} of {len(logits)}")
        print("; ".join(found), flush=True)


def by_its_card(export: Path, pixels: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """The logits of an export, (N, C), of pixels (N, 3, H, W) and of N image files."""
    card = (export / "README.md").read_text()
    load, use = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict = {}
    by_file = []
    with contextlib.chdir(export):
        sys.path.insert(0, os.getcwd())
        sys.modules.pop("model", None)
        exec(load, names)
        sys.path.pop(0)
        for image in images:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(use.replace('"cat.jpg"', repr(str(image))), names)
            by_file.append(names["logits"])
    if "session" in names:
        (by_pixels,) = names["session"].run(None, {"images": pixels})
    else:
        import torch

        by_file = [x.detach() for x in by_file]
        with torch.no_grad():
            by_pixels = names["network"](torch.from_numpy(pixels))
    return np.asarray(by_pixels), np.concatenate(by_file)


if __name__ == "__main__":
    main(sys.argv[1:])
