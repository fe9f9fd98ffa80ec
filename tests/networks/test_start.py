"""A training begins soon: nothing heavy is imported before it is needed."""

import subprocess
import sys

import pytest
from commands_of import TINY
from data_fakes import make_fake, write_class_folders

# Shows at the end of the first step which modules there are, and the seconds of processor time.
FIRST_STEP = """
import os, sys, time
from codistill.command.main import main
from codistill.training.state import TrainingState

def record(self, *batch):
    print(time.process_time(), *{name.partition(".")[0] for name in sys.modules}, flush=True)
    os._exit(0)

TrainingState.record = record
sys.exit(main(sys.argv[1:]))
"""
LATER = {"matplotlib", "scipy", "sklearn", "pandas", "timm", "torchvision", "datasets", "submitit"}


@pytest.mark.long
def test_the_first_step_comes_soon_and_without_what_it_does_not_need(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    write_class_folders(images, make_fake("cifar10"))
    command = [
        "train",
        *TINY,
        "--data",
        "cifar10",
        "--data.root",
        images,
        "--out",
        tmp_path / "run",
    ]
    command += ["--data.val_fraction", "0", "--out", tmp_path / "run"]
    done = subprocess.run(
        [sys.executable, "-c", FIRST_STEP, *map(str, command)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    seconds, *modules = done.stdout.split()
    assert "torch" in modules
    assert LATER.isdisjoint(modules)
    assert float(seconds) < 10  # 3.4 on an AMD EPYC
