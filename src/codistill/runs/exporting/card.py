"""What an export says of itself: config.json for programs, a model card for people."""

import re
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from codistill.importing import optional
from codistill.messages import counted
from codistill.methods import method_class
from codistill.networks.cutting.libraries import timm_settings
from codistill.runs.exporting.formats import (
    FILES,
    WEIGHTS,
    ExportPrecision,
    Form,
    how_to_load,
    how_to_run,
)
from codistill.runs.exporting.verify import Verified, interval
from codistill.runs.finished import Result
from codistill.runs.results import Metrics
from codistill.runs.student import Student


def config_of(
    student: Student, result: Result, form: Form, precision: ExportPrecision
) -> dict[str, Any]:
    """The content of config.json: architecture, classes, preprocessing, metrics.

    `codistill predict` reads "codistill"; timm reads "architecture", "num_classes",
    "pretrained_cfg" and "model_args" of its own networks.
    """
    about = student.about
    name, crop = about["network"], about.get("crop", 1.0)
    mean, std = ([x / 255 for x in about[key]] for key in ("mean", "std"))
    content: dict[str, Any] = {
        "architecture": name,
        "num_classes": len(student.classes),
        "label_names": list(student.classes),
        "preprocessing": {
            "image_size": about["image_size"],
            "crop": crop,
            "interpolation": "bilinear",
            "mean": mean,
            "std": std,
        },
        "metrics": metrics_of(student, result),
        "codistill": about | {"format": form, "precision": precision},
    }
    if form == "timm":
        architecture = name.partition("/")[2].partition(".")[0]
        published = optional("timm", f"network {name}").get_pretrained_cfg(architecture)
        size = tuple(about["image_size"])
        settings = timm_settings(name.partition("/")[2], size)
        content |= {
            "architecture": architecture,
            "model_args": settings,
            "pretrained_cfg": {
                "tag": "codistill",
                "custom_load": False,
                "input_size": [3, *size],
                "fixed_input_size": bool(settings),
                "interpolation": "bilinear",
                "crop_pct": crop,
                "crop_mode": "center",
                "mean": mean,
                "std": std,
                "num_classes": len(student.classes),
                "pool_size": None,
                "first_conv": getattr(published, "first_conv", None),
                "classifier": getattr(published, "classifier", None),
            },
        }
    return content


def metrics_of(student: Student, result: Result) -> Metrics:
    """The scores of the classifier, of the epoch that ships."""
    return _of_epoch(result).get(student.about["classifier"], {})


def _of_epoch(result: Result) -> dict[str, Metrics]:
    scores = result.scores
    return scores.last if scores.kept[1] == "last" else scores.best_by_validation


def card_of(
    student: Student,
    result: Result,
    form: Form,
    precision: ExportPrecision,
    verified: Verified,
) -> str:
    """The model card, in Markdown."""
    library = {"timm": "timm", "onnx": "onnx"}.get(form, "pytorch")
    head = {
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "knowledge-distillation", "codistill"],
        "metrics": ["accuracy"],
    }
    front = yaml.safe_dump(head, sort_keys=False)
    parts = [
        f"---\n{front}---\n",
        f"# {_plain(student.about['network'])}\n",
        *_sections(student, result, form, precision, verified),
    ]
    return "\n".join(parts)


def _sections(
    student: Student, result: Result, form: Form, precision: ExportPrecision, verified: Verified
) -> Iterator[str]:
    about, c, m = student.about, result.config, result.manifest
    name, classes = about["classifier"], student.classes
    networks = ", ".join(map(_plain, c.networks()))
    file = FILES.get(form, WEIGHTS)
    how = "by online knowledge distillation, in which several networks teach each other"
    yield (
        f"An image classifier of {len(classes):,} classes, trained by codistill"
        f"{f' {how}: this is' if len(c.networks()) > 1 else ':'} `{name}` of the run.\n"
    )
    yield "## Use\n"
    yield f"```python\n{how_to_load(about, form)}```\n"
    height, width = about["image_size"]
    yield (
        f"`{file}` takes images (B, 3, {height}, {width}) in float32 and returns logits "
        f"(B, {len(classes)}) in the order of `label_names` in `config.json`. Preprocessing: cut "
        f"out the square in the middle whose side is {about.get('crop', 1.0):g} times the image's "
        f"short side, resize it to {height} x {width} pixels (bilinear), divide by 255, then "
        "`(x - mean) / std` per channel, both in `config.json`. "
        "`codistill predict FOLDER IMAGE ...` does all of it; without codistill:\n"
    )
    yield f"```python\n{how_to_run(form)}```\n"
    yield "## Data\n"
    counts = ", ".join(f"{n:,} {split}" for split, n in m.images.items())
    shown = ", ".join(map(_plain, classes[:20])) + (", ..." if len(classes) > 20 else "")
    yield f"`{m.data.get('name', c.data.name)}`: {counts} images. Classes: {shown}.\n"
    yield f"Fingerprint of the images: `{m.fingerprint}`.\n"
    yield "## Training\n"
    shared = f", the first {c.shared} stages shared" if c.shared else ""
    yield (
        f"Method `{c.method['name']}`; company: {counted(len(c.networks()), 'peer')} "
        f"({networks}{shared}); {counted(c.epochs, 'epoch')}, epoch {about.get('epoch', '?')} "
        f"ships; {c.optimizer}, learning rate {c.lr}, batches of {c.batch_size}; seed {c.seed}. "
        "codistill "
        f"{', '.join(m.versions) or 'of an unknown version'}.\n"
    )
    yield "## Results\n"
    yield from _results(result, name)
    yield "## Compared with the network before the export\n"
    yield (
        f"{form}, {precision}, on {verified.images:,} test images, on a CPU: {verified.line()}.\n"
    )
    yield "## Limits\n"
    yield (
        f"- One seed: another one gives another network, and another accuracy.\n"
        f"- The accuracy holds for images like those of the test set. Images of other cameras, "
        f"places or times were not measured.\n"
        f"- The network names one of its {len(classes)} classes for every image, whatever it "
        "shows. Its probabilities are not calibrated.\n"
    )
    yield "## Citation\n"
    cited = paper_of(c.method["name"])
    yield (
        f"{cited}\n\n" if cited else ""
    ) + f"Trained with codistill, method `{c.method['name']}`.\n"


def _results(result: Result, name: str) -> Iterator[str]:
    """Every classifier of the run on the test images, with an interval."""
    n = result.manifest.images.get("test", 0)
    yield f"Top-1 and top-5 in % on the {n:,} test images, with the 95 % interval of so many:\n"
    rows = ["| classifier | top-1 | 95 % interval | top-5 | NLL |", "|---|---|---|---|---|"]
    for other, metrics in _of_epoch(result).items():
        top1 = metrics["test/top1"]
        low, high = interval(top1, n) if n else (0.0, 100.0)
        shown = f"**{other}** (this one)" if other == name else other
        rows.append(
            f"| {shown} | {top1:.2f} | {low:.2f} to {high:.2f} | {metrics['test/top5']:.2f} | "
            f"{metrics['test/nll']:.4f} |"
        )
    yield "\n".join(rows) + "\n"


def paper_of(method: str) -> str:
    """The paper of a method as its module names it; "" where that names none."""
    doc = sys.modules[method_class(method).__module__].__doc__ or ""
    for paragraph in doc.split("\n\n")[1:]:
        found = re.match(r"[^:]+: .*?arXiv:\d{4}\.\d{4,5}", " ".join(paragraph.split()))
        if found:
            return f"{found[0]}."
    return ""


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_|<>\[\]#~&$])", r"\\\1", " ".join(text.split()))
