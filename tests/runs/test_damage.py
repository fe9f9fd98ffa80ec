"""Damage to what a run left is named, and what can be made again is made again."""

import shutil
from pathlib import Path

import pytest
import torch
from commands_of import codistill
from runs_of import progress_of

from codistill.errors import InputError
from codistill.networks.student import read_student
from codistill.runs.finished import load_result
from codistill.runs.run import Run
from codistill.seals import NAME
from codistill.settings.arguments import parse_config
from codistill.tensor_files import read_state, read_weights, write_state, write_weights
from codistill.training.state import TrainingState


@pytest.fixture
def run(digits_runs: list[Path], tmp_path: Path) -> Path:
    """A finished run of two epochs, to be damaged."""
    return Path(shutil.copytree(digits_runs[0], tmp_path / "run"))


def flip(file: Path, share: float = 0.5) -> None:
    """Changes one bit, at a share of the file."""
    content = bytearray(file.read_bytes())
    content[int(share * len(content))] ^= 1
    file.write_bytes(content)


def edit(file: Path, old: str, new: str) -> None:
    """Changes a text in a file as its owner would."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def change_a_number(file: Path) -> None:
    """Changes the first digit behind a point."""
    content = bytearray(file.read_bytes())
    content[content.index(b".") + 1] ^= 1
    file.write_bytes(content)


def checkpoints(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/epoch*.pt"))


def test_settings_that_were_edited_stop_a_run_until_its_owner_says_so(run: Path) -> None:
    edit(run / "config.yaml", "lr: 0.05", "lr: 0.06")
    done = codistill("train", "--resume", run)
    assert done.returncode == 2
    assert f"{run}/config.yaml is damaged or was edited: put it back" in done.stderr
    lines = (run / "config.yaml").read_text().splitlines(True)
    (run / "config.yaml").write_text("".join(line for line in lines if NAME not in line))
    assert Run(run).config.lr == 0.06


def test_edited_settings_are_a_recipe_with_a_note(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = run / "config.yaml"
    assert parse_config(["--config", str(config)], "train").lr == 0.05
    assert not caplog.text
    edit(config, "lr: 0.05", "lr: 0.06")
    assert parse_config(["--config", str(config)], "train").lr == 0.06
    assert f"{config} is damaged or was edited since codistill wrote it" in caplog.text


def test_an_edited_manifest_stops_a_report(run: Path) -> None:
    edit(run / "manifest.json", '"fingerprint": "', '"fingerprint": "0')
    with pytest.raises(InputError, match="manifest.json is damaged or was edited"):
        load_result(run)


@pytest.mark.parametrize("name", ["history.jsonl", "result.json"])
@pytest.mark.parametrize("damage", ["digit", "empty", "no text"])
def test_history_and_result_are_made_again_from_the_checkpoint(
    name: str, damage: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, content = load_result(run), (run / name).read_bytes()
    assert not caplog.text
    if damage == "digit":
        change_a_number(run / name)
    else:
        (run / name).write_bytes({"empty": b"", "no text": b"\xff\xfe"}[damage])
    assert load_result(run) == before
    assert "made anew from the last checkpoint" in caplog.text
    assert (run / name).read_bytes() == content


@pytest.mark.parametrize("name", ["history.jsonl", "result.json"])
def test_without_a_checkpoint_the_damaged_file_is_named(name: str, run: Path) -> None:
    change_a_number(run / name)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(InputError, match=f"{name} is damaged"):
        load_result(run)


def test_results_are_not_made_of_the_checkpoint_of_an_earlier_epoch(run: Path) -> None:
    checkpoints(run)[-1].unlink()
    change_a_number(run / "result.json")
    with pytest.raises(InputError, match="result.json is damaged"):
        load_result(run)


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json"])
def test_settings_and_manifest_are_made_again_once_the_damaged_file_is_deleted(
    name: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, content = load_result(run), (run / name).read_bytes()
    flip(run / name)
    with pytest.raises(InputError, match=f"or delete {name}, and it is made anew from the last"):
        load_result(run)
    (run / name).unlink()
    assert load_result(run) == before
    assert f"{run / name} is gone, and is made anew from the last checkpoint" in caplog.text
    assert (run / name).read_bytes() == content


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json"])
def test_without_a_checkpoint_nothing_says_that_they_can_be_made_again(
    name: str, run: Path
) -> None:
    shutil.rmtree(run / "checkpoints")
    flip(run / name)
    with pytest.raises(InputError, match=f"{name} is damaged") as raised:
        load_result(run)
    assert "anew" not in str(raised.value)
    (run / name).unlink()
    with pytest.raises(InputError, match=f"no file .*{name}|holds no run"):
        load_result(run)


def test_damaged_weights_of_the_best_epoch_are_those_of_the_same_training(run: Path) -> None:
    shutil.copy(run / "weights.safetensors", run / "weights_best.safetensors")
    flip(run / "weights_best.safetensors")
    done = codistill("evaluate", run, "--weights", "best")
    assert done.returncode == 2
    config = f"codistill train --config {run}/config.yaml --out NEW"
    assert "weights_best.safetensors is damaged" in done.stderr
    assert f"put it back; or {config} trains the same run again" in done.stderr


@pytest.mark.parametrize("text", ["numbers", "syntax"])
def test_a_checkpoint_of_one_wrong_bit_gives_way_to_the_one_before(
    text: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights, names = (run / "weights.safetensors").read_bytes(), progress_of(run)
    flip(checkpoints(run)[-1])
    flip(run / "weights.safetensors")
    if text == "numbers":
        change_a_number(run / "history.jsonl")
    else:
        flip(run / "history.jsonl", share=0)  # its first brace
    done = codistill("train", "--resume", run)
    assert done.returncode == 0, done.stderr
    assert f"{names[1]} is damaged" in caplog.text
    assert f"continuing from the one before, and calling it {names[1]}.damaged" in caplog.text
    assert (run / "weights.safetensors").read_bytes() == weights
    assert progress_of(run) == names
    assert (run / "checkpoints" / f"{names[1]}.damaged").exists()


@pytest.mark.long
def test_where_no_checkpoint_is_left_it_says_what_to_do(run: Path) -> None:
    for path in checkpoints(run):
        flip(path)
    done = codistill("train", "--resume", run)
    assert done.returncode == 2
    assert "no checkpoint before it is left: put one back, or delete" in done.stderr
    shutil.rmtree(run / "checkpoints")
    weights = (run / "weights.safetensors").read_bytes()
    assert codistill("train", "--resume", run).returncode == 0
    assert (run / "weights.safetensors").read_bytes() == weights


def test_a_checkpoint_of_another_run_is_refused(run: Path, digits_runs: list[Path]) -> None:
    for path in checkpoints(digits_runs[1]):
        shutil.copy(path, run / "checkpoints")
    with pytest.raises(InputError, match="is no checkpoint of this run"):
        list(Run(run).train())


def test_a_run_of_an_early_version_has_checkpoints_without_a_mark(run: Path) -> None:
    for path in checkpoints(run):
        state = read_state(path)
        del state["run"]
        write_state(path, state)
    with pytest.raises(InputError, match="is no checkpoint of this run"):
        list(Run(run).train())
    manifest = (run / "manifest.json").read_text().splitlines(True)
    early = [line for line in manifest if NAME not in line and '"id"' not in line]
    (run / "manifest.json").write_text("".join(early).replace('"weights": [],', '"weights": []'))
    assert list(Run(run).train()) == []


def test_a_folder_that_is_moved_while_a_run_trains_is_no_folder_to_continue(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, save = (run / "weights.safetensors").read_bytes(), Run._save
    checkpoints(run)[-1].unlink()

    def move_first(self: Run, state: TrainingState) -> None:
        run.rename(run.parent / "moved")
        save(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_save", move_first)
        done = codistill("train", "--resume", run)
    assert done.returncode == 2
    assert f"{run} is no longer there (No such file or directory): if it was moved" in done.stderr
    assert f"--resume {run}" not in done.stderr
    assert codistill("train", "--resume", run.parent / "moved").returncode == 0
    assert (run.parent / "moved" / "weights.safetensors").read_bytes() == weights


def test_damaged_weights_are_named_and_written_again(run: Path) -> None:
    flip(run / "weights.safetensors")
    done = codistill("evaluate", run)
    assert done.returncode == 2
    assert "weights.safetensors is damaged" in done.stderr
    assert f"codistill train --resume {run} writes it anew" in done.stderr
    assert codistill("train", "--resume", run).returncode == 0
    assert codistill("evaluate", run).returncode == 0


def test_a_damaged_student_is_refused(run: Path) -> None:
    read_student(run / "student.safetensors")
    flip(run / "student.safetensors")
    with pytest.raises(InputError, match="student.safetensors is damaged"):
        read_student(run / "student.safetensors")


def test_weights_that_are_not_finite_are_not_evaluated(run: Path) -> None:
    file = run / "weights.safetensors"
    tensors, about = read_weights(file)
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[name][0] = torch.nan
    write_weights(file, tensors, about)
    done = codistill("evaluate", run)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"holds a weight that is not finite: {name}" in done.stderr
