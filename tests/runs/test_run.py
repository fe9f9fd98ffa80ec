"""A run's folder: what is in it, that it resumes exactly, and that nothing good is ever lost."""

import contextlib
import dataclasses
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands_of import TINY, Copies, codistill
from filelock import FileLock, Timeout
from runs_of import assert_same_run, progress_of, tiny_config, train, untimed
from safetensors.torch import load_file

from codistill import seals
from codistill.errors import InputError
from codistill.files import write_bytes
from codistill.methods.flops import forward_flops
from codistill.runs.results import Kept, RunScores, best_epoch, preferred
from codistill.runs.run import Run
from codistill.settings.data_config import DataConfig
from codistill.tensor_files import read_state
from codistill.training.evaluate import evaluate
from codistill.training.state import NonFiniteError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    done = codistill("train", *TINY, "--out", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "short")


@pytest.fixture
def trained(short: Path, tmp_path: Path) -> Path:
    """A run of two epochs, to be damaged."""
    return Path(shutil.copytree(short, tmp_path / "run"))


def test_a_run_holds_all_that_is_promised(finished: Path) -> None:
    names = {p.name for p in finished.iterdir()}
    assert names >= {
        "config.yaml",
        "manifest.json",
        "history.jsonl",
        "history.csv",
        "checkpoints",
        "weights.safetensors",
        "weights_best.safetensors",
        "student.safetensors",
        "result.json",
        "tensorboard",
    }
    assert len(list((finished / "checkpoints").iterdir())) == 2
    assert not list(finished.rglob("*.tmp"))


def test_the_history_has_every_term_and_every_classifier(finished: Path) -> None:
    history = untimed(finished)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    classifiers = ("peer0", "peer1", "ensemble", "fused")
    expected = {"epoch", "lr", "loss/ce", "loss/ekd", "loss/fkd"} | {
        f"{split}/{metric}/{name}"
        for split in ("val", "test")
        for metric in ("top1", "top5", "nll")
        for name in classifiers
    }
    expected |= {f"{split}/kl/peer{i}/peer{1 - i}" for split in ("val", "test") for i in (0, 1)}
    expected |= {f"{split}/disagreement/peer0/peer1" for split in ("val", "test")}
    assert set(history[0]) == expected


def test_the_csv_says_what_the_jsonl_says(finished: Path) -> None:
    head, *rows = [x.split(",") for x in (finished / "history.csv").read_text().splitlines()]
    lines = (finished / "history.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [dict(zip(head, map(float, row), strict=True)) for row in rows] == records


def test_the_manifest_says_where_the_run_comes_from(finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["images"] == {"train": 808, "val": 90, "test": 899}
    assert manifest["parameters"] == {
        "peer0": 78042,
        "peer1": 78042,
        "peers": 136420,
        "method": 10378,
        "adapters": 0,
        "frozen": 0,
    }
    assert manifest["flops"] == forward_flops(Run(finished).method, (8, 8))
    assert len(manifest["data"]["fingerprint"]) == 64
    (process,) = manifest["processes"]
    assert process["packages"]["torch"] == torch.__version__
    assert process["threads"] == 1
    assert process["gpu"] == {}


@pytest.mark.long
def test_the_resolved_config_gives_the_same_run(finished: Path, tmp_path: Path) -> None:
    done = codistill("train", "--config", finished / "config.yaml", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert_same_run(finished, tmp_path / "again")


def test_another_seed_gives_another_run(finished: Path, tmp_path: Path) -> None:
    codistill("train", *TINY, "--seed", "1", "--epochs", "1", "--out", tmp_path / "other")
    first, other = untimed(finished)[0], untimed(tmp_path / "other")[0]
    assert first["loss/ce"] != other["loss/ce"]


@pytest.mark.long
def test_a_run_killed_at_random_times_ends_with_the_same_bits(
    finished: Path, tmp_path: Path, copies: Copies
) -> None:
    """With kill -9, in the middle of an epoch or of a write: every step writes a checkpoint."""
    killed, log = tmp_path / "killed", tmp_path / "log"
    start = ["train", *TINY, "--checkpoint_seconds", "0", "--out", killed]
    resume = ["train", "--resume", killed]
    rng = random.Random(time.time_ns())  # noqa: S311
    kills = 0
    while kills < 5:
        before = progress_of(killed)
        copies.start(*(resume if (killed / "config.yaml").exists() else start), log=log)
        while not copies.ended() and progress_of(killed) == before:
            time.sleep(0.002)  # until it has taken a step
        time.sleep(rng.uniform(0, 0.15))
        status = copies.send(signal.SIGKILL)
        if status == 0:
            break
        assert status == -signal.SIGKILL, log.read_text()
        kills += 1
    assert kills >= 2, "the run ended before it could be killed twice"
    done = codistill(*resume)
    assert done.returncode == 0, done.stderr
    assert_same_run(finished, killed)


def test_resuming_a_finished_run_changes_nothing(finished: Path) -> None:
    before = {p.name: p.read_bytes() for p in finished.glob("*.safetensors")}
    assert codistill("train", "--resume", finished).returncode == 0
    assert {p.name: p.read_bytes() for p in finished.glob("*.safetensors")} == before
    assert len(untimed(finished)) == 3


def test_a_run_that_gets_signals_ends_with_the_same_bits(
    finished: Path, tmp_path: Path, copies: Copies
) -> None:
    """Each ends the step, leaves a checkpoint of it, and says how to continue."""
    run, log = tmp_path / "run", tmp_path / "log"
    rng, stops = random.Random(time.time_ns()), 0  # noqa: S311
    for number in [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT]:
        began = number_of_processes(run)
        copies.start("train", *TINY, "--out", run, "--resume", "auto", log=log)
        while not copies.ended() and number_of_processes(run) == began:
            time.sleep(0.002)  # until it trains
        time.sleep(rng.uniform(0, 0.2))
        status = copies.send(number)
        if status == 0:
            break
        assert status == 128 + number, log.read_text()
        stops += 1
        errors = log.read_text()
        assert "Traceback" not in errors
        last = (*progress_of(run), "")[-1]
        assert f"codistill: {number.name}: stopped; " in errors
        assert last in errors
        assert f"codistill train --resume {run}\n" in errors  # on one line, to be pasted
    assert stops >= 2, "the run ended before it could be stopped twice"
    done = codistill("train", "--resume", run)
    assert done.returncode == 0, done.stderr
    assert_same_run(finished, run)


def number_of_processes(run: Path) -> int:
    """How many processes have trained a run so far."""
    try:
        return len(json.loads((run / "manifest.json").read_text())["processes"])
    except OSError:
        return 0


def test_two_processes_do_not_train_one_run(tmp_path: Path, copies: Copies) -> None:
    run = tmp_path / "run"
    copies.start("train", *TINY, "--epochs", "500", "--out", run, log=tmp_path / "log")
    while not progress_of(run) and not copies.ended():
        time.sleep(0.01)
    second = codistill("train", "--resume", run)
    copies.send(signal.SIGKILL)
    assert second.returncode == 2
    assert "another process is training" in second.stderr


@pytest.mark.long
def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_checkpoint(
    tmp_path: Path,
) -> None:
    run = Run.create(tiny_config(tmp_path / "run", epochs=4))
    with pytest.raises(NonFiniteError, match=r"'ce'.* in epoch 3, step 4:"):
        for _ in run.train(lambda batches: poisoned(batches, run, epoch=2, step=3)):
            pass
    (*_, last) = progress_of(run.path)
    assert last.startswith("epoch00002_step0000000")
    state = read_state(run.path / "checkpoints" / last)
    assert all(v.isfinite().all() for v in state["method"].values())


def poisoned(batches, run, epoch, step):  # type: ignore[no-untyped-def]
    """Batches with one weight made NaN before a certain step."""
    for i, batch in enumerate(batches):
        if len(run.history()) == epoch and i == step:
            with torch.no_grad():
                run.method.peers.heads[0][-1].weight[0, 0] = torch.nan
        yield batch


def test_weights_that_are_not_finite_are_never_kept(tmp_path: Path) -> None:
    """The loss of the last step was fine; the step itself was not."""
    run = Run.create(tiny_config(tmp_path / "run"))

    def spoil(batches):  # type: ignore[no-untyped-def]
        yield from batches
        with torch.no_grad():
            run.method.peers.heads[0][-1].weight[0, 0] = torch.inf

    with pytest.raises(NonFiniteError, match=r"peers\.heads\.0.*not finite"):
        list(run.train(spoil))
    assert progress_of(run.path) == []


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """The limit on the size of a file stands for the disk: both fail in the middle of a write."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.long
def test_a_full_disk_leaves_the_last_checkpoint(trained: Path) -> None:
    before = {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()}
    with full_disk(10_000), pytest.raises(OSError, match="File too large"):
        write_bytes(next(p for p in before if p.suffix == ".pt"), bytes(20_000))
    assert {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()} == before


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with full_disk(300_000):
        limited = codistill("train", *TINY, "--out", run)
    assert limited.returncode == 2
    line = limited.stderr.splitlines()[-1]
    assert line.startswith(f"codistill: error: File too large ({run}")
    assert line.endswith("free some space; the files that were there before are intact")
    assert "Traceback" not in limited.stderr


def test_a_folder_that_holds_another_run_is_refused(finished: Path) -> None:
    with pytest.raises(InputError, match="holds another run: continue it with --resume"):
        Run.create(tiny_config(finished))


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="is not empty"):
        Run.create(tiny_config(tmp_path))


def test_a_bad_option_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shared is 7"):
        Run.create(tiny_config(tmp_path / "run", shared=7))
    assert list(tmp_path.iterdir()) == []


def test_a_run_goes_on_only_with_the_data_that_it_began_with(tmp_path: Path) -> None:
    run = Run.create(tiny_config(tmp_path / "run"))
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["data"]["fingerprint"] = "0" * 64
    del manifest[seals.NAME]
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="are not those that"):
        list(Run(run.path).train())


@pytest.mark.long
@pytest.mark.parametrize("size", [0, 1000, 5000, 100_000])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(size: int, trained: Path) -> None:
    weights = (trained / "weights.safetensors").read_bytes()
    (*_, last) = sorted((trained / "checkpoints").glob("epoch*.pt"))
    last.write_bytes(last.read_bytes()[:size])
    list(Run(trained).train())
    assert (trained / "weights.safetensors").read_bytes() == weights


def test_a_checkpoint_of_something_else_is_named(trained: Path) -> None:
    for path in (trained / "checkpoints").glob("epoch*.pt"):
        torch.save({"something": torch.ones(1)}, path)
    with pytest.raises(InputError, match="is no checkpoint of this run"):
        list(Run(trained).train())


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_damaged_run_is_named(name: str, content: str, tmp_path: Path) -> None:
    run = Run.create(tiny_config(tmp_path / "run"))
    (run.path / name).write_text(content)
    if (name, content) == ("config.yaml", "{}"):
        return  # a configuration in which all is as by default
    with pytest.raises(InputError, match=f"{name} is damaged"):
        Run(run.path)


def test_what_a_manifest_lacks_is_named(tmp_path: Path) -> None:
    run = Run.create(tiny_config(tmp_path / "run"))
    (run.path / "manifest.json").write_text('{"data": {}, "processes": []}')
    with pytest.raises(InputError, match=r"it lacks command, git, classes, image_size, "):
        Run(run.path)


def test_weights_of_something_else_are_named(trained: Path) -> None:
    run = Run(trained)
    student = (run.path / "student.safetensors").read_bytes()
    (run.path / "weights.safetensors").write_bytes(student)
    with pytest.raises(InputError, match="does not hold the weights of this FFL"):
        run.load_weights()


_ALSO_STOPPED = ("ffl", "dml", "kdcl")


def test_a_run_that_saved_nothing_may_be_begun_anew(tmp_path: Path) -> None:
    Run.create(tiny_config(tmp_path / "run", lr=1e5))
    run = Run.create(tiny_config(tmp_path / "run", lr=0.1))
    assert run.config.lr == 0.1


@pytest.mark.long
@pytest.mark.parametrize(
    "method", ["afd", "pcl", *(pytest.param(x, marks=pytest.mark.slow) for x in _ALSO_STOPPED)]
)
def test_a_run_that_is_stopped_at_random_steps_ends_with_the_same_bits(
    method: str, tmp_path: Path
) -> None:
    data = DataConfig("digits", images_per_class=6)
    settings: dict[str, object] = {
        "method": {"name": method},
        "shared": 2 if method in ("ffl", "pcl") else 0,
        "data": data,
        "batch_size": 16,
    }
    whole = train(tmp_path / "whole", **settings)
    run = Run.create(tiny_config(tmp_path / "stopped", **settings))
    rng, stops = random.Random(method), 0  # noqa: S311
    while not run.finished():
        left = itertools.count(rng.randint(1, 12), -1)  # an epoch asks 13 times
        list(run.train(stop=lambda left=left: next(left) == 0))  # type: ignore[misc]
        stops += not run.finished()
        assert stops < 40, "it never comes to its end"
        run = Run(run.path)
    assert stops >= 2
    assert_same_run(whole, run.path)


def test_a_stop_leaves_a_checkpoint_of_the_step_and_of_a_begun_evaluation(tmp_path: Path) -> None:
    run = Run.create(tiny_config(tmp_path / "run", epochs=1))
    steps = len(run.data().train)
    asked = itertools.count()
    assert list(run.train(stop=lambda: next(asked) == 3)) == []
    assert progress_of(run.path) == ["epoch00000_step0000003.pt"]
    asked = itertools.count(3)
    assert list(Run(run.path).train(stop=lambda: next(asked) == steps + 2)) == []  # evaluates
    assert progress_of(run.path)[-1] == f"epoch00000_step{steps:07d}.pt"
    assert not run.finished()


def test_a_checkpoint_stands_before_an_evaluation(tmp_path: Path) -> None:
    run = Run.create(tiny_config(tmp_path / "run", epochs=1, checkpoint_seconds=0.0))
    seen: list[list[str]] = []
    list(run.train(stop=lambda: bool(seen.append(progress_of(run.path)))))
    steps = len(run.data().train)
    after_last_step, before_first_batch = seen[steps], seen[steps + 1]
    assert f"epoch00000_step{steps:07d}.pt" not in after_last_step
    assert f"epoch00000_step{steps:07d}.pt" in before_first_batch


def is_locked(run: Path) -> bool:
    """Whether another process could not make a run in the folder now."""
    try:
        with FileLock(run / ".lock", timeout=0):
            return False
    except Timeout:
        return True


def test_a_folder_is_locked_from_the_making_of_a_run_to_the_end_of_training(tmp_path: Path) -> None:
    run = Run.create(tiny_config(tmp_path / "run", epochs=1))
    assert is_locked(run.path)
    training = run.train()
    next(training)
    assert is_locked(run.path)
    with pytest.raises(InputError, match="another process is training"):
        list(Run(run.path).train())
    assert list(training) == []
    assert not is_locked(run.path)
    dropped = Run.create(tiny_config(tmp_path / "dropped")).path
    assert not is_locked(dropped)


def test_a_run_that_was_replaced_does_not_train_on(tmp_path: Path) -> None:
    """Else the folder would hold the settings of one run and the weights of the other."""
    first = Run.create(tiny_config(tmp_path / "run", epochs=1, lr=0.2))
    second = Run.create(tiny_config(tmp_path / "run", epochs=1, lr=0.1))
    with pytest.raises(InputError, match="holds another run since this one was opened"):
        list(first.train())
    assert len(list(second.train())) == 1
    opened = Run(second.path)
    assert opened.config.lr == 0.1


def test_the_folder_of_a_run_tells_it_from_others() -> None:
    def folder(**changes: object) -> str:
        return dataclasses.replace(tiny_config(Path(), **changes), out=None).run_folder().name

    assert re.fullmatch(r"ffl_resnet8x2_digits_seed0_[0-9a-f]{6}", folder())
    assert folder() == folder(threads=2, device="cpu", loggers="none")
    others: list[dict[str, object]] = [
        {"seed": 1},
        {"lr": 0.05},
        {"shared": 1},
        {"method": {"name": "ffl", "ramp_up": 2}},
        {"method": {"name": "one:Own"}},
        {"method": {"name": "other:Own"}},
        {"data": DataConfig("digits", val_fraction=0.2)},
    ]
    assert len({folder(), *(folder(**changes) for changes in others)}) == 8


def test_what_a_killed_write_left_is_swept(tmp_path: Path) -> None:
    run = Run.create(tiny_config(tmp_path / "run", epochs=1))
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / ".epoch00001_step0000000.pt.abc.tmp").touch()
    (run.path / ".export_onnx.abc.tmp").mkdir()
    (run.path / ".export_onnx.abc.tmp" / ".README.md.abc.tmp").touch()
    list(run.train())
    assert not list(run.path.rglob("*.tmp"))


def test_the_folder_of_a_run_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    Run.create(tiny_config(tmp_path / "run"))
    assert (tmp_path / "disk" / "config.yaml").exists()


def test_every_default_of_the_method_is_written_down(tmp_path: Path) -> None:
    run = Run.create(tiny_config(tmp_path / "run"))
    assert run.config.method == {
        "name": "ffl",
        "temperature": 3.0,
        "ramp_up": 1,
        "ensemble_teaches": True,
        "fused_teaches": True,
        "fusion_weight_decay": 1e-5,
        "standardise": False,
    }


def test_a_checkpoint_executes_nothing(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"method": Trap()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="is damaged or no file of torch.save"):
        read_state(tmp_path / "evil.pt")
    assert not (tmp_path / "sprung").exists()


def test_without_held_out_images_the_last_epoch_counts(tmp_path: Path) -> None:
    run = Run.create(tiny_config(tmp_path / "run", data=DataConfig(val_fraction=0.0), epochs=1))
    (record,) = run.train()
    assert not any(key.startswith("val/") for key in record)
    assert not (run.path / "weights_best.safetensors").exists()
    result = json.loads((run.path / "result.json").read_text())
    assert result["best_by_validation"] == {}
    assert result["student"] == {"last": "peer0", "best": None, "best_epoch": None, "epoch": 1}


def record(val: list[float], test: list[float]) -> dict[str, float]:
    out = {"images_per_second": 1.0, "seconds": 1.0, "epoch": 0}
    for split, scores in (("val", val), ("test", test)):
        out |= {f"{split}/top1/peer{k}": score for k, score in enumerate(scores)}
        out |= {f"{split}/{m}/peer{k}": 0.0 for k in range(len(scores)) for m in ("top5", "nll")}
    return out


def test_the_test_set_never_chooses() -> None:
    history = [
        record([50.0, 60.0], [99.0, 10.0]),
        record([55.0, 58.0], [1.0, 99.0]),
        record([60.0, 20.0], [0.0, 0.0]),
    ]
    students = ["peer0", "peer1"]
    assert best_epoch(history, students) == 1
    assert preferred(history[0], students) == "peer1"
    assert preferred(history[2], students) == "peer0"
    scores = RunScores.of(history, students, 100)
    assert scores.student == Kept(last="peer0", best="peer1", best_epoch=1, epoch=1)
    assert (scores.kept, scores.kept_top1) == (("peer1", "best"), 10.0)
    few = RunScores.of(history, students, 99)
    assert few.student == Kept(last="peer0", best="peer1", best_epoch=1, epoch=3)
    assert (few.kept, few.kept_top1) == (("peer0", "last"), 0.0)
    best = scores.best_by_validation
    assert [best[f"peer{k}"]["test/top1"] for k in range(2)] == [99, 10]  # of epoch 1


@pytest.mark.long
def test_the_best_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    run = Run.create(tiny_config(tmp_path / "run", epochs=4, milestones=[10.0]))
    history = []
    states = []
    for entry in run.train():
        history.append(entry)
        states.append({k: v.clone() for k, v in run.method.state_dict().items()})
    chosen = best_epoch(history, run.method.students())
    assert chosen is not None
    best = load_file(run.path / "weights_best.safetensors")
    torch.testing.assert_close(best, dict(states[chosen - 1]), rtol=0, atol=0)
    reported = json.loads((run.path / "result.json").read_text())["best_by_validation"]
    run.load_weights("best")
    metrics = evaluate(run.method, run.data().evaluate_on["test"])
    assert reported["fused"]["test/top1"] == metrics["top1/fused"]


def test_only_a_student_is_preferred() -> None:
    entry = record([50.0, 60.0], [1.0, 2.0]) | {"val/top1/fused": 99.0, "val/top1/leader": 40.0}
    assert preferred(entry, ["peer0", "peer1"]) == "peer1"
    assert preferred(entry, ["leader"]) == "leader"
    assert best_epoch([entry, entry | {"val/top1/leader": 41.0}], ["leader"]) == 2
