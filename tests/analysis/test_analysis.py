"""What is measured of a finished run, and what is said where something is gone."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from runs_of import train

from codistill import InputError, seals
from codistill.analysis import Analysis, ClassChanges, Missing, analyse
from codistill.analysis.analyse import _own
from codistill.runs.finished import Result
from codistill.runs.manifest import Manifest
from codistill.runs.results import Kept, RunScores
from codistill.runs.run import Run
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig

PARTS = (
    "predictions",
    "calibration",
    "class_accuracy",
    "mistakes",
    "changes",
    "similarity",
    "pictures",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "ffl", shared=0)


@pytest.fixture(scope="module")
def analysis(finished: Path) -> Analysis:
    return analyse(finished, pictures=3, similarity_images=200)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def history(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]


def missing(found: Analysis) -> dict[str, str]:
    """The parts that there are none of, and why."""
    parts = {f.name: getattr(found, f.name) for f in fields(found)}
    return {name: part.reason for name, part in parts.items() if isinstance(part, Missing)}


@pytest.mark.long
def test_a_finished_run_has_every_part(analysis: Analysis, finished: Path) -> None:
    assert missing(analysis) == {}
    assert (analysis.path, analysis.weights, analysis.split) == (finished, "last", "test")
    assert analysis.classes == tuple("0123456789")
    assert analysis.kept in ("peer0", "peer1")
    assert analysis.own == "fused"
    names = ["peer0", "peer1", "ensemble", "fused"]
    assert list(analysis.calibration) == list(analysis.class_accuracy) == names


def test_what_is_measured_is_what_the_history_says_of_the_last_epoch(
    analysis: Analysis, finished: Path
) -> None:
    last = history(finished)[-1]
    for name, found in analysis.calibration.items():
        assert found.nll == pytest.approx(last[f"test/nll/{name}"], rel=1e-5)
        right = analysis.predictions.right(name).double().mean().item()
        assert 100 * right == pytest.approx(last[f"test/top1/{name}"])
    first, second = (analysis.predictions.of[f"peer{k}"].guess for k in (0, 1))
    disagree = 100 * (first != second).double().mean().item()
    assert disagree == pytest.approx(last["test/disagreement/peer0/peer1"])


def test_changes_lead_from_what_is_kept_to_the_methods_own(analysis: Analysis) -> None:
    changes = analysis.changes
    assert (changes.first, changes.second) == (analysis.kept, "fused")
    for change in changes.classes:
        accuracies = analysis.class_accuracy
        assert change.first == pytest.approx(accuracies[analysis.kept][change.label])
        assert change.second == pytest.approx(accuracies["fused"][change.label])


def test_pictures_and_maps_are_of_as_many_images_as_asked_for(analysis: Analysis) -> None:
    assert (analysis.similarity.images, analysis.similarity.available) == (200, 899)
    assert [p.last for p in analysis.similarity.pairs] == [False, False, True]
    assert len(analysis.pictures) == 3
    for picture in analysis.pictures:
        of = {m.classifier: m.guess for m in picture.heat_maps}
        right = (of[analysis.kept] == picture.label, of["fused"] == picture.label)
        assert right in ((True, False), (False, True))
        assert analysis.predictions.labels[picture.index] == picture.label


def test_images_and_weights_can_be_chosen(finished: Path) -> None:
    run = Run(finished)
    found = analyse(run, weights="best", split="val", pictures=[5, 2], similarity_images=0)
    result = json.loads((finished / "result.json").read_text())["student"]
    best = history(finished)[result["best_epoch"] - 1]
    assert found.kept == result["best"]
    assert found.calibration["fused"].nll == pytest.approx(best["val/nll/fused"], rel=1e-5)
    assert [p.index for p in found.pictures] == [5, 2]
    assert missing(found) == {"similarity": "no images were asked for to compare feature maps on"}
    for none in (0, []):
        found = analyse(run, pictures=none, similarity_images=3)
        assert missing(found) == {
            "similarity": "feature maps are compared on 4 images or more, not 3",
            "pictures": "no pictures were asked for",
        }


def test_of_one_peer_there_is_what_needs_no_second(tmp_path: Path) -> None:
    path = train(tmp_path / "one", method={"name": "independent"}, peers=1, shared=0, epochs=1)
    found = analyse(path, pictures=2)
    assert (found.kept, found.own) == ("peer0", None)
    assert missing(found).keys() == {"changes", "similarity"}
    assert all(p.heat_maps[0].guess != p.label for p in found.pictures)


# What is gone


def test_without_weights_every_part_says_so(copied: Path) -> None:
    (copied / "weights.safetensors").unlink()
    found = analyse(copied)
    assert missing(found) == dict.fromkeys(PARTS, f"weights.safetensors is not in {copied}")
    assert (found.kept in ("peer0", "peer1"), found.own) == (True, "fused")
    assert found.classes == tuple("0123456789")
    with pytest.raises(InputError, match="no last weights: weights.safetensors is not in it"):
        Run(copied).load_weights()


def test_weights_of_something_else_are_no_crash(copied: Path) -> None:
    shutil.copy(copied / "student.safetensors", copied / "weights.safetensors")
    reasons = missing(analyse(copied))
    assert reasons.keys() == set(PARTS)
    assert "does not hold the weights of this FFL" in reasons["pictures"]


def test_images_that_are_others_now_are_named(copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["data"]["fingerprint"] = "0" * 64
    del manifest[seals.NAME]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    reasons = missing(analyse(copied))
    assert reasons.keys() == set(PARTS)
    assert "are not those that" in reasons["calibration"]


def test_without_held_out_images_there_are_no_best_weights_and_no_val(tmp_path: Path) -> None:
    data = DataConfig(name="digits", val_fraction=0.0)
    path = train(tmp_path / "all", data=data, shared=0, epochs=1)
    best = analyse(path, weights="best")
    assert best.kept is None
    assert "held no images out" in missing(best)["predictions"]
    assert "it has no split 'val'" in missing(analyse(path, split="val"))["predictions"]


def test_without_captum_only_the_pictures_are_missing(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum", None)
    reasons = missing(analyse(finished, similarity_images=20))
    assert reasons.keys() == {"pictures"}
    assert "pip install 'codistill[report]'" in reasons["pictures"]


def test_a_place_that_is_no_image_is_only_the_pictures_loss(finished: Path) -> None:
    reasons = missing(analyse(finished, pictures=[899], similarity_images=20))
    assert reasons == {"pictures": "there is no image 899: there are 899, from 0"}


def test_a_run_that_is_not_finished_is_refused(copied: Path) -> None:
    (copied / "result.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        analyse(copied)


@pytest.mark.parametrize(
    ("method", "classifiers", "students", "own"),
    [
        ({"name": "ffl"}, ["peer0", "peer1", "ensemble", "fused"], ["peer0", "peer1"], "fused"),
        ({"name": "dml"}, ["peer0", "peer1", "ensemble"], ["peer0", "peer1"], "ensemble"),
        ({"name": "okddip"}, ["peer0", "peer1", "ensemble", "leader"], ["leader"], "ensemble"),
        ({"name": "kd", "teacher": "t"}, ["peer0", "teacher"], ["peer0"], None),
        ({"name": "pcl"}, ["peer0", "ensemble", "fused", "mean0"], ["mean0"], "fused"),
        ({"name": "independent"}, ["peer0"], ["peer0"], None),
    ],
)
def test_the_methods_own_classifier_is_nothing_that_is_kept_or_given(
    method: dict[str, str], classifiers: list[str], students: list[str], own: str | None
) -> None:
    last = {name: {"test/top1": 50.0} for name in classifiers}
    scores = RunScores(1, last, {}, Kept(classifiers[0], None, None), 1.0, 1.0)
    parameters = {"peers": 1, "method": 0}
    manifest = Manifest([], {}, {"fingerprint": "f"}, [], [8, 8], {}, parameters)
    assert _own(Result(Path(), Config(method=method), scores, [], manifest), students) == own


def test_a_classifier_that_the_present_code_lacks_is_not_compared(copied: Path) -> None:
    result = json.loads((copied / "result.json").read_text())
    result["last"]["gated"] = result["last"]["fused"]  # of the method as it was
    del result[seals.NAME]
    (copied / "result.json").write_text(json.dumps(result))
    analysis = analyse(copied, pictures=0, similarity_images=0)
    assert analysis.own == "ensemble"
    assert isinstance(analysis.changes, ClassChanges)
    assert analysis.changes.second == "ensemble"
