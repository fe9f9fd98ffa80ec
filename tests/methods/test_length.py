"""Constants that a paper states for its own length follow the length of a run, unless given."""

import sys
from pathlib import Path

import pytest
import yaml
from toys import make

from codistill import Method
from codistill.command.main import main
from codistill.methods import FFL, PCL
from codistill.methods.length import (
    PAPERS,
    Length,
    constant_travel,
    scaled_defaults,
    scaling_notes,
    share_of_epochs,
    share_of_steps,
)

TENTH = Length(epochs=30, steps=11_730)


def test_at_the_papers_length_the_defaults_are_the_papers():
    assert scaled_defaults(FFL, PAPERS) == {"ramp_up": 80}
    assert scaled_defaults(PCL, PAPERS) == {"ramp_up": 80, "decay": 0.999}
    assert list(scaling_notes(make("pcl"), {}, PAPERS)) == []


def test_epochs_keep_their_share_of_the_run():
    assert share_of_epochs(80, PAPERS, TENTH) == 8
    assert share_of_epochs((75, 150), PAPERS, TENTH) == [8, 15]
    assert share_of_epochs(80, PAPERS, Length(1, 7)) == 1  # never 0, which would mean: at once
    assert share_of_epochs(0, PAPERS, TENTH) == 0


def test_a_learning_rate_travels_as_far():
    assert constant_travel(2e-5, PAPERS, TENTH) == pytest.approx(2e-4)
    fewer_images = Length(epochs=300, steps=300 * 79)  # the same epochs
    assert constant_travel(2e-5, PAPERS, fewer_images) == pytest.approx(2e-5 * 391 / 79)


def test_a_moving_average_keeps_its_share_of_the_steps():
    decay = share_of_steps(0.999, PAPERS, TENTH)
    assert 1 / (1 - decay) == pytest.approx(100)  # 1,000 steps of 117,300
    assert share_of_steps(0.999, PAPERS, Length(1, 7)) == 0


def test_the_note_names_what_was_not_given():
    (note,) = scaling_notes(make("pcl"), {"decay": 0.99}, TENTH)
    assert note.endswith("300 epochs are scaled to 30: ramp_up 80 -> 8")


RUN = ["--network", "resnet8", "--epochs", "3", "--threads", "1", "--loggers", "none"]


def resolved(folder: Path) -> dict[str, object]:
    return yaml.safe_load((folder / "config.yaml").read_text())["method"]


@pytest.mark.long
def test_the_command_scales_what_is_not_given_and_says_so(tmp_path, capsys):
    assert main(["train", "--method", "ffl", *RUN, "--out", str(tmp_path / "a")]) == 0
    assert "scaled to 3: ramp_up 80 -> 1" in capsys.readouterr().err
    assert resolved(tmp_path / "a")["ramp_up"] == 1


@pytest.mark.long
def test_what_is_given_stays_even_if_it_is_the_papers(tmp_path, capsys):
    options = ["--method", "ffl", "--method.ramp_up", "80"]
    assert main(["train", *options, *RUN, "--out", str(tmp_path / "a")]) == 0
    assert "are scaled" not in capsys.readouterr().err
    assert resolved(tmp_path / "a")["ramp_up"] == 80
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("method: {name: ffl, ramp_up: 80}\n")
    assert main(["train", "--config", str(recipe), *RUN, "--out", str(tmp_path / "b")]) == 0
    assert resolved(tmp_path / "b")["ramp_up"] == 80


class Slow(Method):
    """A method of somebody else, with a constant of its own for ten epochs."""

    paper_length = Length(epochs=10, steps=100)
    scales = {"wait": share_of_epochs}

    def __init__(self, peers, wait: int = 5):
        super().__init__(peers)
        self.wait = wait

    def losses(self, out, labels, epoch):
        return {"ce": out.logits.mean()}


@pytest.mark.long
def test_own_methods_have_it_too(tmp_path):
    sys.modules["slow_method"] = sys.modules[__name__]
    options = ["--method", "slow_method:Slow", "--epochs", "4"]
    assert main(["train", *RUN, *options, "--out", str(tmp_path / "a")]) == 0
    assert resolved(tmp_path / "a")["wait"] == 2
