"""Trainings on folders of photographs through the command: notes, broken images, exact resume."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from commands_of import Copies, codistill, command
from photo_fakes import write_classes
from rich.console import Console
from runs_of import untimed

from codistill import Batch, InputError, load_image, load_student
from codistill.command.main import main
from codistill.runs import progress
from codistill.runs.other_images import other_images
from codistill.runs.run import Run
from codistill.settings.data_config import DataConfig
from codistill.tensor_files import read_state

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "imagenet-sample"
_OPTIONS = "--data folder --data.image_size 16 --data.workers 1 --network resnet8 --peers 2"
OPTIONS = [*_OPTIONS.split(), "--method", "dml", "--batch_size", "8", "--threads", "1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 photographs of three classes, two of them broken."""
    root = tmp_path_factory.mktemp("data") / "photos"
    write_classes(root, {"ant": 20, "bee": 20, "cow": 20})
    for file in (root / "ant" / "004.jpg", root / "cow" / "011.jpg"):
        file.write_bytes(file.read_bytes()[:300])
    return root


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    done = codistill("train", *OPTIONS, "--data.root", root, "--epochs", "3", "--out", run)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is broken") == 2
    assert len(re.findall(r"images/s; waiting for images: \d+ %; best so far", done.stderr)) == 3
    return run


@pytest.mark.long
def test_a_run_on_a_folder_holds_what_is_promised(root: Path, finished: Path) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())["data"]
    assert (config["val_fraction"], config["test_fraction"]) == (0.1, 0.2)
    assert (config["image_size"], config["min_scale"], config["workers"]) == (16, 0.08, 1)
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["images"] == {"train": 42, "val": 6, "test": 12}
    assert manifest["classes"] == ["ant", "bee", "cow"]
    assert manifest["image_size"] == [16, 16]
    assert (finished / "student.safetensors").exists()
    lines = (finished / "broken_images.txt").read_text().splitlines()
    assert sorted(x.partition("\t")[0] for x in lines) == ["ant/004.jpg", "cow/011.jpg"]


def test_a_run_can_be_evaluated_and_reported(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(finished)]) == 0
    result = json.loads((finished / "result.json").read_text())
    text = capsys.readouterr().out
    assert f"{result['last']['peer0']['test/top1']:.2f}" in text
    assert "10 images of test, without 2 broken ones" in " ".join(text.split())
    assert main(["report", str(finished)]) == 0


@pytest.mark.long
def test_a_run_that_was_killed_within_an_epoch_goes_on_as_if_it_had_not_been(
    root: Path, finished: Path, tmp_path: Path, copies: Copies
) -> None:
    """With another number of workers, too."""
    run, log = tmp_path / "run", tmp_path / "log"
    options = ["--data.root", root, "--epochs", "3", "--out", run, "--checkpoint_seconds", "0"]
    copies.start("train", *OPTIONS, *options, log=log)
    while not list((run / "checkpoints").glob("epoch00001_step000000[1-9].pt")):
        assert not copies.ended(), log.read_text()
        time.sleep(0.005)
    assert copies.send(signal.SIGKILL) == -signal.SIGKILL
    last = sorted((run / "checkpoints").glob("*.pt"))[-1]
    assert read_state(last)["step"] > 0
    done = codistill("train", "--resume", run, "--data.workers", 0)
    assert done.returncode == 0, done.stderr
    assert untimed(run) == untimed(finished)
    weights = "weights.safetensors"
    assert (run / weights).read_bytes() == (finished / weights).read_bytes()
    lines = (run / "broken_images.txt").read_text().splitlines()
    assert sorted(x.partition("\t")[0] for x in lines) == ["ant/004.jpg", "cow/011.jpg"]
    assert done.stderr.count("is broken") == 0  # said by the process that was killed


@pytest.mark.slow
def test_a_signal_to_all_processes_leaves_those_that_read_until_the_checkpoint_is_written(
    root: Path, tmp_path: Path
) -> None:
    """As a shell, `timeout` and a cluster send it: to the workers and their server, too."""
    run = tmp_path / "run"
    options = ["--data.root", root, "--epochs", "500", "--out", run, "--checkpoint_seconds", "0"]
    process = subprocess.Popen(
        command("train", *OPTIONS, *options),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list((run / "checkpoints").glob("epoch00001*.pt")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "SIGTERM: stopped; its last checkpoint is " in errors
    assert "died" not in errors


def test_images_that_have_changed_are_noticed(finished: Path, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "photos")
    with open(tmp_path / "photos" / "bee" / "000.jpg", "ab") as file:
        file.write(b"x")
    done = codistill("evaluate", finished, "--data.root", tmp_path / "photos")
    assert done.returncode == 2
    assert "are not those that" in done.stderr
    assert "59 of 60 that were looked at are among them" in done.stderr
    places = "--data.root", tmp_path / "photos", "--split", "all"
    done = codistill("evaluate", finished, *places)
    assert done.returncode == 0, done.stderr
    assert "58 images of" in done.stdout


@pytest.mark.parametrize(
    ("folders", "options", "counted", "notes"),
    [
        ({"ant": 3, "cow": 5}, [], 8, ["measured on all images", "of the class 'bee'"]),
        ({"cow": 4}, [], 4, ["1 class from the names of the folders: 'cow'"]),
        ({"train/ant": 3, "test/ant": 2, "train/bee": 3, "test/bee": 4}, [], 6, ["its test split"]),
        ({"train/ant": 3, "dev/ant": 2, "train/bee": 3}, ["--split", "val"], 2, ["its val split"]),
        ({"train/ant": 3, "dev/ant": 2, "train/bee": 3}, ["--split", "all"], 8, []),
    ],
)
def test_a_run_is_measured_on_other_images_with_its_class_names(
    finished: Path,
    tmp_path: Path,
    folders: dict[str, int],
    options: list[str],
    counted: int,
    notes: list[str],
) -> None:
    for seed, (folder, count) in enumerate(folders.items()):
        path = tmp_path / "other" / folder
        write_classes(path.parent, {path.name: count}, seed=1000 + 50 * seed)
    place = str(tmp_path / "other")
    done = codistill("evaluate", finished, "--data.root", place, "--data.workers", "0", *options)
    assert done.returncode == 0, done.stderr
    assert f"last weights, {counted} images of {place}" in done.stdout
    for note in notes:
        assert note in done.stderr


def test_labels_of_other_images_are_those_of_the_run(finished: Path, tmp_path: Path) -> None:
    """Classes of a folder that has some of them, counted from 0, stand elsewhere in the run."""
    write_classes(tmp_path / "other", {"bee": 2, "cow": 3}, seed=2000)
    given = DataConfig("folder", str(tmp_path / "other"))
    found = other_images(Run(finished, workers=0), given, "test")
    assert found is not None
    assert found[0].split.labels.tolist() == [1, 1, 2, 2, 2]
    assert found[0].normalisation.mean == (123.675, 116.28, 103.53)


def test_options_for_other_images_need_their_place(finished: Path) -> None:
    for option in (["--data", "csv"], ["--data.splits", "none"], ["--split", "all"]):
        done = codistill("evaluate", finished, *option)
        assert done.returncode == 2
        assert "--data.root" in done.stderr


def test_other_classes_are_noticed(finished: Path, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "photos")
    write_classes(tmp_path / "photos", {"dog": 1})
    done = codistill("evaluate", finished, "--data.root", tmp_path / "photos")
    assert done.returncode == 2
    assert "has the classes 'dog', which" in done.stderr
    assert "does not know, but 'ant', 'bee', 'cow'" in done.stderr
    done = codistill("train", "--resume", finished, "--data.root", tmp_path / "photos")
    assert done.returncode == 2
    assert "the classes of the data are not those that" in done.stderr
    assert "(dog)" in done.stderr


def test_a_run_may_find_its_images_elsewhere(finished: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").symlink_to(root)
    places = "--data.root", tmp_path / "moved", "--data.workers", "0"
    assert codistill("evaluate", finished, *places).returncode == 0


def test_a_photograph_is_shown_to_the_student_as_evaluation_shows_it(
    finished: Path, root: Path
) -> None:
    student = load_student(finished / "student.safetensors")
    about = student.about
    assert about["crop"] == 0.875
    test = Run(finished, workers=0).data().evaluate_on["test"]
    shown = torch.cat([batch.views[0] for batch in test])
    readable = [test.split.name(i) for i in range(len(test.split))]
    readable = [n for n in readable if n not in ("ant/004.jpg", "cow/011.jpg")]
    loaded = torch.cat([student.image(root / name) for name in readable])
    assert torch.equal(loaded, shown)
    with pytest.raises(InputError, match="004.jpg: "):
        student(root / "ant" / "004.jpg")
    with pytest.raises(InputError, match="lacks"):
        load_image(root / "ant" / "000.jpg", {"classes": []})
    assert student(loaded).shape == (len(readable), 3)


@pytest.mark.slow
def test_ctrl_c_ends_a_run_in_one_line_and_leaves_no_process(root: Path, tmp_path: Path) -> None:
    options = ["--data.root", str(root), "--epochs", "500", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        command("train", *OPTIONS, *options),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    while not any("epoch 1/" in line for line in lines):
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors, errors
    assert "continue with: codistill train --resume" in errors
    deadline = time.monotonic() + 20
    while group_lives(process.pid):
        assert time.monotonic() < deadline, "a process lives on"
        time.sleep(0.05)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_a_run_in_one_line(root: Path, tmp_path: Path) -> None:
    options = ["--data.root", str(root), "--epochs", "5000", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        command("train", *OPTIONS, *options), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines: list[str] = []
    while not any("epoch 1/" in line for line in lines):
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    for pid in descendants(process.pid):
        if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes() and not descendants(pid):
            os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "codistill: error: a process that reads images died" in errors
    assert "continue with: codistill train --resume" in errors
    assert "Traceback" not in errors


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        pytest.skip("this system does not say who is whose child")
    found = list(map(int, children.read_text().split()))
    return [*found, *(inner for child in found for inner in descendants(child))]


def test_an_inspection_counts_the_classes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*OPTIONS, "--data.root", str(root)]
    assert main(["inspect", *options]) == 0
    assert "16x16x16" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    assert main(["inspect", *OPTIONS]) == 2
    assert "give it by --data.root" in capsys.readouterr().err


def test_a_run_says_what_is_remarkable_about_its_images(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "photos", {"ant": 60, "bee": 5})
    (root / "cow").mkdir()
    options = ["--data.root", str(root), "--data.workers", "0", "--epochs", "1"]
    done = codistill("train", *OPTIONS, *options, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for note in (
        "note: no images in the class folder 'cow'",
        "note: fewer than 5 images to train on have the class 'bee'",
        "note: the largest class has 14 times as many images as the smallest",
        "images: undivided 65",
        "2 classes from the names of the folders: 'ant', 'bee'",
    ):
        assert note in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not there")
def test_real_photographs_train_and_resume(tmp_path: Path) -> None:
    """160 photographs of ImageNet, grouped into four classes of our own."""
    for i, file in enumerate(sorted(REAL.glob("*/*.JPEG"))):
        folder = tmp_path / "photos" / "abcd"[i % 4]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).symlink_to(file)
    assert main(["data", "check", str(tmp_path / "photos")]) == 0
    options = [*OPTIONS, "--data.image_size", "64", "--data.root", str(tmp_path / "photos")]
    options += ["--epochs", "2", "--data.rand_augment", "9", "--batch_size", "32"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert codistill("train", *options, "--out", whole).returncode == 0
    process = subprocess.Popen(command("train", *options, "--out", run), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list((run / "checkpoints").glob("*.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert codistill("train", "--resume", run).returncode == 0
    assert untimed(run) == untimed(whole)


def test_an_epochs_line_says_how_long_it_waited_for_images(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batches take 3 s each to come and 1 s each to train on."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    run, console = Run(finished), Console(file=io.StringIO())

    class Slow(list[Batch]):
        def __iter__(self) -> Iterator[Batch]:
            for batch in super().__iter__():
                now[0] += 3
                yield batch

    with progress.live_bars(console) as bars:
        watch = progress._Watch(run, console, "", bars)
        for _ in watch(Slow([Batch([], torch.zeros(2).long())] * 3)):
            now[0] += 1
        assert watch.waiting == 0.75
