"""Tests run on one thread: tiny tensors are faster so, and sums have one order.

And runs that several files of tests look at, each trained once.
"""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of FFL, and one network alone, each for two epochs."""
    from codistill.runs.run import Run
    from codistill.settings.config import Config
    from codistill.settings.data_config import DataConfig

    folder = tmp_path_factory.mktemp("runs")
    paths = []
    for method, peers, shared, seed in (
        ("ffl", 2, 2, 0),
        ("ffl", 2, 2, 1),
        ("independent", 1, 0, 0),
    ):
        config = Config(
            method={"name": method} | ({"ramp_up": 1} if method == "ffl" else {}),
            data=DataConfig(name="digits", val_fraction=0.1),
            network="resnet8",
            peers=peers,
            shared=shared,
            epochs=2,
            batch_size=64,
            lr=0.05,
            threads=1,
            seed=seed,
            out=str(folder / f"{method}{seed}"),
        )
        run = Run.create(config)
        list(run.train())
        paths.append(run.path)
    return paths


@pytest.fixture(scope="session")
def digits_report(digits_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of these runs, with the images 3 and 17."""
    from codistill.command.main import main

    folder = tmp_path_factory.mktemp("report")
    assert main(["report", *map(str, digits_runs), "--out", str(folder), "--images", "3,17"]) == 0
    return folder
