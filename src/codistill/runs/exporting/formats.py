"""The forms of an export: how each is written, read back, and loaded by others."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from codistill.errors import InputError, reason
from codistill.importing import optional
from codistill.names import NETWORKS
from codistill.networks.cutting.libraries import timm_settings, torchvision_settings
from codistill.networks.network import Network
from codistill.networks.student import read_student
from codistill.runs.exporting.standalone import load_standalone, standalone
from codistill.runs.student import Student
from codistill.tensor_files import write_weights
from codistill.training.folding import folded_network

Form = Literal["safetensors", "timm", "torchvision", "onnx", "pt2"]
ExportPrecision = Literal["fp32", "bf16", "fp16", "int8"]

FILES = {"onnx": "model.onnx", "pt2": "model.pt2"}
"""The file of the model by form; the others have `WEIGHTS`."""
WEIGHTS = "model.safetensors"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_PURPOSE = "exporting to ONNX"


def refuse_unfit(student: Student, form: Form, precision: ExportPrecision) -> None:
    """Raises InputError for a form that cannot hold this network, or has no such precision."""
    name, library = student.about["network"], student.about["network"].partition("/")[0]
    if form not in FILES and not isinstance(student.network, Network):
        raise InputError(
            f"{name} is more than one network: export it by --format onnx or pt2, or one peer"
        )
    if form in ("timm", "torchvision") and library != form:
        raise InputError(f"{name} is no network of {form}: give --format safetensors, onnx or pt2")
    if precision == "int8" and form != "onnx":
        raise InputError("int8 is for --format onnx: give that, or another --precision")
    if precision == "bf16" and form == "onnx":
        raise InputError("onnxruntime computes no bf16 on a CPU: give --precision fp16 or fp32")


def write_model(
    folder: Path,
    student: Student,
    form: Form,
    precision: ExportPrecision,
    calibration: Sequence[Tensor] = (),
) -> None:
    """Writes the files of the model, without config.json and the card.

    Args:
        folder: a folder that is there.
        student: the network on the CPU.
        form: what is written.
        precision: numbers of the weights, and in ONNX and pt2 of the computation.
        calibration: normalised training images (B, 3, H, W), for int8.

    Raises:
        InputError: the network cannot be brought into this form.
    """
    if form in FILES:
        dtype = _DTYPES.get(precision)
        side = student.about["image_size"]
        sample = torch.randn(4, 3, *side, generator=torch.Generator().manual_seed(0))
        network = folded_network(student.network, sample)
        with _exporting(student, form):
            if dtype is not None:
                network = _Lower(network, dtype)
            if form == "pt2":
                buffer = io.BytesIO()  # its own writer reports a full disk in its own way
                torch.export.save(_traced(network, sample), buffer)
                (folder / FILES["pt2"]).write_bytes(buffer.getvalue())
            else:
                _write_onnx(folder, network, sample, calibration if precision == "int8" else ())
        return
    assert isinstance(student.network, Network)
    weights = student.network.original_state_dict()
    if precision in _DTYPES:
        weights = {
            name: x.to(_DTYPES[precision]) if x.is_floating_point() else x
            for name, x in weights.items()
        }
    write_weights(folder / WEIGHTS, weights, student.about)
    if student.about["network"] in NETWORKS:
        source = standalone(student.about["network"], len(student.classes))
        (folder / "model.py").write_text(source, encoding="utf-8")


def read_model(folder: Path, about: dict[str, Any], form: str) -> nn.Module:
    """The model of an export, loaded as others load it: its folder's config.json is written.

    Args:
        folder: folder of the export.
        about: what the export says of its network; see `Student.about`.
        form: its form.
    """
    library, _, name = about["network"].partition("/")
    classes, size = len(about["classes"]), (about["image_size"][0], about["image_size"][1])
    if form == "onnx":
        return OnnxNetwork(folder / FILES["onnx"])
    if form == "pt2":
        return torch.export.load(folder / FILES["pt2"]).module()
    if form == "timm":
        timm = optional("timm", f"network timm/{name}")
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    if library == "torchvision":
        from safetensors.torch import load_file

        models = optional("torchvision", f"network torchvision/{name}").models
        network = models.get_model(name, **torchvision_settings(name, classes, size))
        network.load_state_dict(load_file(folder / WEIGHTS))
        return network.eval()
    if about["network"] in NETWORKS:
        return load_standalone(folder / "model.py")
    return read_student(folder / WEIGHTS, trust_code=True)[0]


def how_to_load(about: dict[str, Any], form: Form) -> str:
    """Python that loads the export without codistill, run in its folder."""
    library, _, name = about["network"].partition("/")
    classes, size = len(about["classes"]), (about["image_size"][0], about["image_size"][1])
    if form == "onnx":
        return 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("model.onnx")\n'
    if form == "pt2":
        return 'import torch\n\nnetwork = torch.export.load("model.pt2").module()\n'
    if form == "timm":
        return 'import timm\n\nnetwork = timm.create_model("local-dir:.", pretrained=True).eval()\n'
    load = 'network.load_state_dict(load_file("model.safetensors"))\nnetwork.eval()\n'
    if about["network"] in NETWORKS:
        return "from model import load  # model.py of this folder\n\nnetwork = load()\n"
    settings: dict[str, Any] = {"num_classes": classes}
    if library == "torchvision":
        settings = torchvision_settings(name, classes, size)
        make = f"import torchvision\n{_LOAD_FILE}network = torchvision.models.{name}("
    elif library == "timm":
        settings |= timm_settings(name, size)
        make = f"import timm\n{_LOAD_FILE}network = timm.create_model({name!r}, "
    else:
        module, _, call = about["network"].partition(":")
        make = f"from {module} import {call}\n{_LOAD_FILE}network = {call}("
    arguments = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    return f"{make}{arguments})\n{load}"


def how_to_run(form: Form) -> str:
    """Python that classifies an image file with what `how_to_load` loaded, in the same folder."""
    if form == "onnx":
        return _FROM_FILE.format(torch="", run='(logits,) = session.run(None, {"images": images})')
    return _FROM_FILE.format(
        torch="import torch\n", run="logits = network(torch.from_numpy(images))"
    )


_FROM_FILE = """import json
from pathlib import Path

import numpy as np
{torch}from PIL import Image, ImageOps

config = json.loads(Path("config.json").read_text())
how = config["preprocessing"]
image = ImageOps.exif_transpose(Image.open("cat.jpg")).convert("RGB")
side = how["crop"] * min(image.size)
left, top = (image.width - side) / 2, (image.height - side) / 2
box = (left, top, left + side, top + side)
image = image.resize(how["image_size"], Image.Resampling.BILINEAR, box=box)
pixels = (np.asarray(image) / 255 - how["mean"]) / how["std"]
images = pixels.transpose(2, 0, 1)[None].astype("float32")
{run}
print(config["label_names"][int(logits.argmax())])
"""
_LOAD_FILE = "from safetensors.torch import load_file\n\n"


class OnnxNetwork(nn.Module):
    """A network that onnxruntime computes on the CPU.

    Args:
        file: its ONNX file.
    """

    def __init__(self, file: Path):
        super().__init__()
        self.session = optional("onnxruntime", "an ONNX file").InferenceSession(
            str(file), providers=["CPUExecutionProvider"]
        )

    def forward(self, images: Tensor) -> Tensor:
        (logits,) = self.session.run(None, {"images": images.contiguous().numpy()})
        return torch.from_numpy(logits)


class _Lower(nn.Module):
    """A copy of a network that computes in bf16 or fp16 between float32 images and logits."""

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.network = copy.deepcopy(network).to(dtype)
        self.dtype = dtype
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.to(self.dtype)).float()


def _traced(network: nn.Module, sample: Tensor) -> Any:
    """The network as a program for any number of images, without the paths of this machine."""
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (sample,), dynamic_shapes=shapes)
    for module in program.graph_module.modules():
        for node in getattr(module, "graph", torch.fx.Graph()).nodes:
            for fact in ("stack_trace", "from_node"):  # files with their lines
                node.meta.pop(fact, None)
    return program


def _write_onnx(
    folder: Path, network: nn.Module, sample: Tensor, calibration: Sequence[Tensor]
) -> None:
    """Writes model.onnx; where there are images to calibrate on, with 8-bit convolutions."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        optional(module, _PURPOSE)
    file = folder / FILES["onnx"]
    program = torch.onnx.export(
        _traced(network, sample),
        input_names=["images"],
        output_names=["logits"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(file)
    if calibration:
        quantization = optional("onnxruntime.quantization", _PURPOSE)
        prepared, images = (
            folder / "prepared.onnx",
            iter([{"images": x.numpy()} for x in calibration]),
        )

        class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
            def get_next(self) -> Any:
                return next(images, None)

        optional("onnxruntime.quantization.shape_inference", _PURPOSE).quant_pre_process(
            str(file), str(prepared)
        )
        quantization.quantize_static(str(prepared), str(file), Reader(), per_channel=True)
        prepared.unlink()


@contextlib.contextmanager
def _exporting(student: Student, form: Form) -> Iterator[None]:
    """Turns what an exporter raises into an InputError, and keeps its warnings away."""
    root = logging.getLogger()
    level = root.level
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            root.setLevel(logging.ERROR)
            yield
    except (InputError, ImportError, MemoryError, OSError):
        raise
    except Exception as error:  # an exporter can raise nearly anything
        why = reason(error.__cause__ or error)
        raise InputError(f"{form} cannot take {student.about['network']}: {why}") from error
    finally:
        root.setLevel(level)
