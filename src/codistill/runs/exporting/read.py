"""An export read again, to classify photographs."""

from pathlib import Path

from codistill import files
from codistill.errors import InputError
from codistill.networks.student import check_about
from codistill.runs.exporting.formats import FILES, WEIGHTS, read_model
from codistill.runs.student import Student, load_student

CONFIG = "config.json"


def open_export(folder: Path, trust_code: bool = False) -> Student:
    """The classifier of an export.

    Raises:
        InputError: the folder holds no export of codistill, is damaged, or its file may run code
            and is not trusted.
    """
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} holds no run and no export")
    content = files.read_json(folder / CONFIG)
    about = content.get("codistill") if isinstance(content, dict) else None
    if not isinstance(about, dict):
        raise InputError(f"{folder / CONFIG} is not that of an export of codistill")
    form = about.get("format")
    if form not in FILES:
        return load_student(folder / WEIGHTS, trust_code)
    check_about(about, folder / CONFIG)
    if form == "pt2" and not trust_code:
        raise InputError(
            f"{folder / FILES[form]} is a file that may run code: if you trust it, give "
            "--trust_code true"
        )
    with files.reading(folder / FILES[form], f"file of {form}"):
        network = read_model(folder, about, form)
    return Student(network, about)
