"""`codistill export`: a network of a run for programs without codistill."""

from pathlib import Path
from typing import Any

from codistill.command.options import Parser, add_out, add_places, add_trust
from codistill.errors import InputError


def main(argv: list[str]) -> int:
    """`codistill export RUN --format FORMAT`."""
    parser = Parser(
        prog="codistill export",
        description="Writes a network of a finished run as a folder that loads without codistill: "
        "the model, config.json and a model card. Compares it with the network on test images.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--format",
        choices=["safetensors", "timm", "torchvision", "onnx", "pt2"],
        required=True,
        help="safetensors: weights, and model.py for a network of codistill's own; timm, "
        "torchvision: as these libraries load them; onnx; pt2: torch.export",
    )
    parser.add_argument(
        "--of",
        metavar="CLASSIFIER",
        default="student",
        help="student, peer0, ensemble, fused, or another classifier of the run's report "
        "(default: student)",
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16", "fp16", "int8"],
        default="fp32",
        help="numbers of the weights; of onnx and pt2 also of the computation. int8 (onnx) is "
        "calibrated on training images (default: fp32)",
    )
    add_out(parser, "folder to write (default: RUN/export_FORMAT)")
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="also send it to this repository of the Hugging Face Hub, with the token of "
        "`hf auth login` or HF_TOKEN",
    )
    add_places(parser)
    add_trust(parser)
    options: Any = parser.parse_args(argv)
    if options.device not in (None, "cpu"):
        raise InputError("an export is made and compared on the CPU: leave out --device")

    from codistill import files
    from codistill.messages import printable
    from codistill.runs.exporting.export import export
    from codistill.runs.exporting.push import push, require_login
    from codistill.runs.run import Run

    if options.push:
        require_login(options.push)
    trusted = options.trust_code == "true"
    run = Run(options.run, "cpu", options.root, options.workers, trust_code=trusted)
    out = files.place_of(options.out) if options.out else None
    folder, student, verified = export(run, options.format, options.of, options.precision, out)
    about = student.about
    print(
        printable(f"{folder}: {about['classifier']}, {about['network']}, {options.precision}"),
        *(f"  {path.name}, {_size(path)}" for path in sorted(folder.iterdir())),
        f"compared on {verified.images:,} test images: {verified.line()}",
        sep="\n",
    )
    if options.push:
        print(f"sent to {push(folder, options.push)}")
    return 0


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
