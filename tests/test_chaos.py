"""A small part of `make chaos`, and that it notices a loss."""

import chaos
import pytest


@pytest.mark.slow
def test_a_few_attacks_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "METHODS", ("dml",))
    names = ["kill_at_a_file_operation", "damaged_unfinished_run", "hostile_files"]
    assert chaos.attack(names, minutes=0, seed=0, tries=1) == 0


@pytest.mark.slow
def test_a_run_that_ends_with_other_weights_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chaos, "METHODS", ("dml",))
    ended = iter(range(9))
    monkeypatch.setattr(chaos, "contents", lambda path: str(next(ended)))
    assert chaos.attack(["kill_at_a_random_time"], minutes=0, seed=0, tries=1) == 1
    assert "the run ended with other weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [
        (1, "Traceback (most recent call last):\nValueError: 3", "a traceback: ValueError: 3"),
        (2, "usage: codistill", "without one line of error"),
    ],
)
def test_what_is_no_line_of_error_is_a_loss(status: int, text: str, why: str) -> None:
    with pytest.raises(chaos.Lost, match=why):
        chaos.Ended(status, text).said_it()
