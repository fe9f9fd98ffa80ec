"""Loggers: each epoch is sent once, a resumed run continues there, and none of them stops a run."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from runs_of import assert_same_run, tiny_config, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from codistill.command.main import main
from codistill.errors import InputError, MissingExtraError
from codistill.runs.finished import load_results
from codistill.runs.loggers import require_loggers
from codistill.runs.run import Run

KEY = "test/top1/peer0"


class Diary:
    """A logger that writes what it is told into a file."""

    def __init__(self, project: str, folder: Path):
        self.file = folder / "diary.txt"
        self.write(f"begin {project}")

    def write(self, line: str) -> None:
        with self.file.open("a") as file:
            file.write(line + "\n")

    def store_init_configuration(self, values: dict[str, object]) -> None:
        self.write(f"settings {values['data.name']} {values['epochs']}")

    def log(self, values: dict[str, float], step: int) -> None:
        assert values["epoch"] == step
        self.write(f"epoch {step}")

    def finish(self) -> None:
        self.write("end")


class Offline(Diary):
    """A logger that loses its connection in the second epoch, until there is a file "online"."""

    def log(self, values: dict[str, float], step: int) -> None:
        if step >= 2 and not (self.file.parent / "online").exists():
            raise ConnectionError("no\nnetwork")
        super().log(values, step)


class Exits(Diary):
    """A logger that ends the process in the second epoch, as some do without a login."""

    def log(self, values: dict[str, float], step: int) -> None:
        if step == 2:
            sys.exit("no login")
        super().log(values, step)

    def finish(self) -> None:
        super().finish()
        sys.exit("no login")


def unusable(project: str, folder: Path) -> object:
    return object()


def diary(run: Path) -> list[str]:
    return (run / "diary.txt").read_text().splitlines()


def interrupt(out: Path, loggers: str, after: int, epochs: int = 3) -> None:
    """Trains `after` epochs, then ends as Ctrl-C does."""
    records = Run.create(tiny_config(out, loggers=loggers, epochs=epochs)).train()
    for _ in range(after):
        next(records)
    records.close()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that told TensorBoard, interrupted once."""
    path = tmp_path_factory.mktemp("runs") / "told"
    interrupt(path, "tensorboard", after=1)
    # TensorBoard reads files in the order of their names, which know the time to a second.
    time.sleep(1.1)
    for _ in Run(path).train():
        pass
    return path


@pytest.mark.long
def test_tensorboard_has_every_epoch_once_after_a_resume(told: Path) -> None:
    board = EventAccumulator(str(told / "tensorboard"))
    board.Reload()
    lines = (told / "history.jsonl").read_text().splitlines()
    history = [json.loads(line) for line in lines]
    for key in history[0]:
        assert [event.step for event in board.Scalars(key)] == [1, 2, 3], key
    values = [event.value for event in board.Scalars(KEY)]
    assert values == pytest.approx([record[KEY] for record in history])


def test_tensorboard_has_the_settings_once(told: Path) -> None:
    (settings,) = (told / "tensorboard").rglob("hparams.yml")
    found = yaml.safe_load(settings.read_text())
    assert (found["data.name"], found["lr"], found["data.root"]) == ("digits", 0.1, "None")


@pytest.mark.long
def test_loggers_change_no_bit_of_a_run_and_are_no_part_of_its_recipe(
    told: Path, tmp_path: Path
) -> None:
    silent = tmp_path / "silent"
    interrupt(silent, "none", after=1)
    for _ in Run(silent).train():
        pass
    assert not (silent / "loggers.json").exists()
    assert_same_run(told, silent)
    with pytest.raises(InputError, match="give each seed once"):  # so they are one setting
        load_results([told, silent])


@pytest.mark.long
def test_a_logger_of_ones_own_goes_on_where_it_was(tmp_path: Path) -> None:
    interrupt(tmp_path / "run", "test_loggers:Diary", after=2)
    for _ in Run(tmp_path / "run", trust_code=True).train():
        pass
    begin = ["begin codistill", "settings digits 3"]
    first = [*begin, "epoch 1", "epoch 2", "end"]
    assert diary(tmp_path / "run") == [*first, "begin codistill", "epoch 3", "end"]


@pytest.mark.long
def test_a_logger_that_fails_is_given_up_with_one_note_and_told_the_rest_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    with caplog.at_level(logging.WARNING):
        train(run, loggers="test_loggers:Offline,test_loggers:Diary", epochs=3)
    (note,) = [r.getMessage() for r in caplog.records if "fails" in r.getMessage()]
    assert "Offline fails (ConnectionError: no network): the training continues" in note
    assert (run / "result.json").exists()
    assert diary(run).count("epoch 1") == diary(run).count("end") == 2  # of both
    assert diary(run).count("epoch 3") == 1  # of the other
    (run / "online").touch()
    (run / "diary.txt").unlink()
    for _ in Run(run, loggers="test_loggers:Offline").train():
        pass
    assert diary(run) == ["begin codistill", "epoch 2", "epoch 3", "end"]


@pytest.mark.long
def test_a_logger_that_ends_the_process_is_given_up_and_finished_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "run", loggers="test_loggers:Exits", epochs=3)
    assert "Exits fails (SystemExit: no login): the training continues" in caplog.text
    assert diary(tmp_path / "run") == ["begin codistill", "settings digits 3", "epoch 1", "end"]
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.long
def test_a_logger_does_not_wait_for_other_processes_where_a_launcher_tells_of_some(
    tmp_path: Path,
) -> None:
    code = (
        "from pathlib import Path; from codistill.settings.config import Config; import os, torch\n"
        "from codistill.runs.loggers import logging_to\n"
        "before = dict(os.environ)\n"
        "with logging_to(Path('.'), Config(loggers='tensorboard'), []) as tell:\n"
        "    tell({'epoch': 1, 'x': 0.5})\n"
        "print(torch.distributed.is_initialized(), dict(os.environ) == before)"
    )
    launcher = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    launcher |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        env=os.environ | launcher,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, "fails" in done.stderr) == ("False True\n", False), done.stderr
    assert json.loads((tmp_path / "loggers.json").read_text())["tensorboard"]["epoch"] == 1


def test_a_logger_without_the_methods_of_one_does_not_stop_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "run", loggers="test_loggers:unusable", epochs=1)
    assert "has no store_init_configuration, log, finish" in caplog.text
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.long
def test_a_logger_that_joins_a_finished_run_is_told_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train(run, loggers="none")
    assert main(["train", "--resume", str(run), "--loggers", "test_loggers:Diary"]) == 0
    expected = ["begin codistill", "settings digits 2", "epoch 1", "epoch 2", "end"]
    assert diary(run) == expected


@pytest.mark.parametrize(
    ("loggers", "answer"),
    [
        ("tensorbord", "did you mean 'tensorboard'"),
        ("test_loggers:Nothing", "has no 'Nothing'"),
        ("test_loggers:KEY", "cannot be called"),
        ("tensorboard,,wandb", "an entry of it is empty"),
        ("dvclive", "pip install dvclive"),
    ],
)
def test_a_logger_that_cannot_be_had_is_named_before_a_run_begins(
    loggers: str, answer: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=answer):
        Run.create(tiny_config(tmp_path / "run", loggers=loggers))
    assert not (tmp_path / "run").exists()


def test_a_logger_that_is_not_installed_is_answered_with_the_line_that_installs_it() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'codistill\[trackio\]'"):
        require_loggers(tiny_config(Path("run"), loggers="tensorboard,trackio"))
