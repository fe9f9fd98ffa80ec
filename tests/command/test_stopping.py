"""A training ends in time, with a checkpoint: at a signal, after --max_time, before a job's end."""

import datetime
import itertools
import os
import signal
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands_of import TINY, codistill
from runs_of import assert_same_run, progress_of

from codistill import clock
from codistill.command import stopping
from codistill.command.main import exit_status, main
from codistill.command.stopping import EndedAtOnce, Stopping, duration
from codistill.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3h30m", 12600), ("90m", 5400), ("1d12h", 129600), ("45s", 45), ("1.5h", 5400)],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "h", "30m3h", "1h1h", "0s", "-1h", "3h30", "1H", "1e3s"]
)
def test_what_is_no_duration_is_named(text: str) -> None:
    with pytest.raises(InputError, match="is no time: give days, hours"):
        duration(text)


class Clock:
    """A clock of `time.monotonic` that advances by as many seconds as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: float = 0.0):
        self.now, self.step = 1000.0, step
        monkeypatch.setattr(stopping, "time", types.SimpleNamespace(monotonic=self.read))

    def read(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)


def test_it_stops_a_minute_and_the_longest_step_before_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = Clock(monkeypatch)
    stop = Stopping()
    stop.end_in_time("2h")
    time.now += 100  # until the first question nothing is a step
    while not stop():
        time.now += 30
        assert time.now < 1000 + 8000, "it never stops"
    assert 1000 + 7200 - time.now == 80  # the step before it began at 110, of which 90 are kept
    assert (stop.reason, stop.status) == ("--max_time", 75)


def test_of_a_short_time_it_keeps_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock(monkeypatch)
    stop = Stopping()
    stop.end_in_time("10s")
    time.now += 8.9
    assert not stop()
    time.now += 0.1
    assert stop()


def at(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def test_it_stops_before_a_job_ends_though_the_wall_clock_jumps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = Clock(monkeypatch)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "50600")
    monkeypatch.setattr(clock, "now", lambda: at(50000))
    stop = Stopping()
    stop.end_in_time("1d")
    monkeypatch.setattr(clock, "now", lambda: at(90000))
    time.now += 539
    assert not stop()
    time.now += 1
    assert stop()
    assert (stop.reason, stop.status) == ("the end of the SLURM job", 75)


def test_a_job_that_is_over_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "50600")
    stop = Stopping()
    stop.end_in_time(None)
    assert not stop()
    assert "SLURM_JOB_END_TIME is 50600, which is over: it is ignored" in caplog.text


@pytest.fixture
def handlers() -> Iterator[dict[int, object]]:
    """Python's own handlers, which are put back."""
    before = {number: signal.getsignal(number) for number in stopping.ENDING}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]


@pytest.mark.usefixtures("handlers")
def test_a_signal_asks_to_stop_and_a_second_one_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    time = Clock(monkeypatch)
    for first, second in itertools.pairwise([*stopping.ENDING, signal.SIGINT]):
        stop = Stopping()
        with stop.on_signals():
            assert not stop()
            signal.raise_signal(first)
            try:  # as `timeout` sends it, to the process and to its group
                signal.raise_signal(first)
            except EndedAtOnce:
                pytest.fail("one signal was taken for two")
            assert stop()
            assert (stop.reason, stop.status) == (signal.Signals(first).name, 128 + first)
            time.now += 1
            with pytest.raises(EndedAtOnce) as raised:
                signal.raise_signal(second)
            assert signal.getsignal(second) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
        assert exit_status(lambda error=raised.value: (_ for _ in ()).throw(error)) == 128 + second
    assert "codistill: SIGUSR1: the step ends, then a checkpoint" in capfd.readouterr().err


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As SIGHUP under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stopping()
    with stop.on_signals():
        signal.raise_signal(signal.SIGHUP)
        assert not stop()


def test_a_terminal_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = []

    def write(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "dup2", lambda *fds: turned.append(fds[1]))
    stopping._print("SIGHUP")
    assert turned == [2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert codistill("train", *TINY, "--out", run).returncode == 0
    return run


@pytest.mark.long
def test_a_script_calls_the_same_command_until_it_is_done(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, step=1.0)  # a step takes a second, and so does a batch of an evaluation
    run, statuses = tmp_path / "run", []
    while not statuses or statuses[-1] == 75:
        assert len(statuses) < 40, "it never comes to its end"
        done = codistill("train", *TINY, "--out", run, "--resume", "auto", "--max_time", "40s")
        statuses.append(done.returncode)
        if done.returncode == 75:
            checkpoint = run / "checkpoints" / progress_of(run)[-1]
            assert f"--max_time: stopped; its last checkpoint is {checkpoint}; " in done.stderr
            assert f"continue with: codistill train --resume {run}\n" in done.stderr
    assert statuses[-1] == 0, done.stderr
    assert len(statuses) >= 2
    assert_same_run(whole, run)


def test_a_time_in_which_nothing_is_done_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a script would call the same command for ever."""
    Clock(monkeypatch, step=1.0)
    done = codistill("train", *TINY, "--out", tmp_path / "run", "--max_time", "1s")
    assert done.returncode == 2
    assert "--max_time came before one more step or evaluation was complete" in done.stderr


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (["--lr", "0.05"], "lr 0.1, not 0.05"),
        (["--seed", "1"], "seed 0, not 1"),
        (["--method.temperature", "4"], "method.temperature 3.0, not 4.0"),
        (["--threads", "2"], "threads 1, not 2"),
        (["--checkpoint_seconds", "5"], "checkpoint_seconds 300.0, not 5.0"),
    ],
)
def test_settings_that_are_not_those_of_the_run_are_named(
    other: list[str], said: str, whole: Path
) -> None:
    done = codistill("train", *TINY, "--out", whole, "--resume", "auto", *other)
    assert done.returncode == 2
    assert f"{whole} holds a run of other settings ({said}): give its settings" in done.stderr


def test_what_a_run_may_take_anew_is_no_other_setting(whole: Path) -> None:
    done = codistill(
        "train", *TINY, "--out", whole, "--resume", "auto", "--device", "cpu", "--loggers", "none"
    )
    assert done.returncode == 0, done.stderr


def test_both_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["--resume", "run", "--help"]):
        with pytest.raises(SystemExit):
            main(["train", *arguments])
        shown = capsys.readouterr().out
        assert "--max_time" in shown
        assert "--resume" in shown
