"""Photographs classified by a run, a student's file, and the other classifiers of a run."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
import torch
from commands_of import codistill
from photo_fakes import encoded, picture

from codistill.errors import InputError
from codistill.runs.classifier import open_classifier
from codistill.runs.predict import image_files, predict
from codistill.runs.run import Run
from codistill.runs.student import load_student


@pytest.fixture(scope="module")
def ffl(digits_runs: list[Path]) -> Path:
    return digits_runs[0]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three photographs, one of them in a folder inside, and a text beside them."""
    folder = tmp_path / "pictures"
    (folder / "inside").mkdir(parents=True)
    for i, name in enumerate(("a.jpg", "b.png", "inside/c.jpg")):
        kind = "PNG" if name.endswith("png") else "JPEG"
        (folder / name).write_bytes(encoded(picture(i), kind))
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_prediction_is_that_of_the_student(ffl: Path, pictures: Path) -> None:
    done = codistill("predict", ffl, pictures, "--format", "json", "--top", "3")
    assert (done.returncode, done.stderr) == (0, "")
    student = load_student(ffl / "student.safetensors")
    for answer, name in zip(
        json.loads(done.stdout), ("a.jpg", "b.png", "inside/c.jpg"), strict=True
    ):
        assert answer["image"] == str(pictures / name)
        expected = list(student.probabilities(pictures / name).items())[:3]
        assert [c["class"] for c in answer["classes"]] == [name for name, _ in expected]
        shares = [c["probability"] for c in answer["classes"]]
        assert shares == pytest.approx([share for _, share in expected], abs=1e-5)


def test_forms_and_files_say_the_same(ffl: Path, pictures: Path, tmp_path: Path) -> None:
    given = ("predict", ffl / "student.safetensors", pictures / "a.jpg")
    (answer,) = json.loads(codistill(*given, "--format", "json").stdout)
    rows = list(csv.DictReader(io.StringIO(codistill(*given, "--format", "csv").stdout)))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [(row["class"], float(row["probability"])) for row in rows] == [
        (c["class"], c["probability"]) for c in answer["classes"]
    ]
    table = codistill(*given)
    first = answer["classes"][0]
    line = table.stdout.splitlines()[2].split()
    assert line == [str(pictures / "a.jpg"), first["class"], f"{100 * first['probability']:.2f}"]
    assert codistill(*given, "--out", tmp_path / "x.txt").stdout == ""
    assert (tmp_path / "x.txt").read_text() == table.stdout


def test_batches_and_workers_change_nothing_and_the_order_is_that_of_the_files(
    ffl: Path, pictures: Path
) -> None:
    student, images, done = open_classifier(ffl), image_files([str(pictures)]), []
    images = [images[2], images[0], images[1]]
    alone = predict(student, images, batch_size=1, watch=done.append)
    assert [p.image for p in alone] == images
    assert done == [1, 1, 1]
    together = predict(student, images, batch_size=2)
    for one, other in zip(alone, together, strict=True):
        assert dict(one.classes) == pytest.approx(dict(other.classes), abs=1e-5)


@pytest.mark.parametrize("of", ["peer0", "peer1", "ensemble", "fused"])
def test_other_classifiers_of_a_run(of: str, ffl: Path, pictures: Path) -> None:
    student = open_classifier(ffl, of, "cpu")
    images = student.image(pictures / "a.jpg")
    run = Run(ffl)
    run.load_weights("last")
    with torch.no_grad():
        expected = run.method.eval()([images]).classifiers[of]
    torch.testing.assert_close(student(images), expected)
    assert student.about["classifier"] == of
    assert student.about["peer"] == (int(of[4:]) if of.startswith("peer") else None)


def test_a_broken_image_is_named_and_the_status_says_so(ffl: Path, pictures: Path) -> None:
    (pictures / "a.jpg").write_bytes(b"")
    done = codistill("predict", ffl, pictures, "--format", "json")
    assert done.returncode == 1
    assert f"image {pictures / 'a.jpg'} is broken: the file is empty" in done.stderr
    assert "1 image of 3 cannot be read" in done.stderr
    first, *others = json.loads(done.stdout)
    assert first == {"image": str(pictures / "a.jpg"), "broken": "the file is empty"}
    assert all(len(answer["classes"]) == 5 for answer in others)
    rows = codistill("predict", ffl, pictures / "a.jpg", "--format", "csv")
    assert (rows.returncode, rows.stdout) == (1, "image,rank,class,probability\n")


def test_files_folders_and_patterns(pictures: Path) -> None:
    a, b, c = (str(pictures / name) for name in ("a.jpg", "b.png", "inside/c.jpg"))
    assert image_files([str(pictures)]) == [a, b, c]
    assert image_files([b, str(pictures)]) == [b, a, c]
    assert image_files([str(pictures / "*")]) == [a, b, c]
    assert image_files([str(pictures / "**" / "*.jpg")]) == [a, c]
    assert image_files([str(pictures / "notes.txt")]) == [str(pictures / "notes.txt")]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("RUN", "none.jpg"), "there is no file none.jpg"),
        (("RUN", "empty"), "empty has no image in it"),
        (("RUN", "*.gif"), "*.gif fits no image"),
        (("empty", "a.jpg"), "empty holds no run and no export"),
        (("nothing", "a.jpg"), "there is no file nothing"),
        (("RUN", "a.jpg", "--of", "fusd"), "has no classifier 'fusd': did you mean 'fused'?"),
        (("RUN/student.safetensors", "a.jpg", "--of", "fused"), "'fused' is for the folder of"),
        (("RUN", "a.jpg", "--out", "none/x.csv"), "--out none/x.csv is no file in a folder"),
        (("RUN", "a.jpg", "--out", "/dev/full"), "--out /dev/full is no file in a folder"),
        (("RUN", "a.jpg", "--top", "0"), "'0' is not a whole number above 0"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(
    arguments: tuple[str, ...], answer: str, ffl: Path, pictures: Path
) -> None:
    (pictures / "empty").mkdir()
    given = [argument.replace("RUN", str(ffl)) for argument in arguments]
    done = codistill("predict", *given, cwd=pictures)
    assert (done.returncode, done.stdout) == (2, "")
    assert answer in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_found_out_before_anything_is_computed(
    ffl: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda place, mode: (str(place), mode) != (".", os.W_OK))
    done = codistill("predict", ffl, "none.jpg", "--out", "x.csv", cwd=pictures)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "codistill: error: --out x.csv: its folder cannot be written\n"


def test_a_run_is_known_by_its_student_too(ffl: Path, tmp_path: Path) -> None:
    (tmp_path / "student.safetensors").write_bytes((ffl / "student.safetensors").read_bytes())
    assert open_classifier(tmp_path).classes == open_classifier(ffl).classes


def test_a_run_without_a_student_says_how_to_go_on(ffl: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes((ffl / "config.yaml").read_bytes())
    with pytest.raises(InputError, match="has no student.safetensors yet: codistill train"):
        open_classifier(tmp_path)
