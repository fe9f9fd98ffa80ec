"""Codistillation across jobs that share a folder, in one process; the last test has three."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from toys import C, assert_same_tensors, build_once, echo, steps, tiny, toy_batches
from written_out import kl_of_probabilities

from codistill import InputError, Peers, build_network, load_student
from codistill.methods.papers.codistillation import Codistillation
from codistill.runs.run import Run
from codistill.settings.build_method import build_method
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig
from codistill.tensor_files import read_weights, write_weights


def job(folder, name, network="resnet8", seed=0, classes="abcd", noise=0.01, **options):
    torch.manual_seed(seed)
    peers = Peers([build_once(network, len(classes))], classes=list(classes))
    for weight in peers.parameters():
        weight.data += noise * torch.randn_like(weight)
    return Codistillation(peers, folder=str(folder), job=name, **{"every": 2} | options)


def log(folder, name):
    return [json.loads(x) for x in (folder / f"{name}.copies.jsonl").read_text().splitlines()]


def content(folder, name):
    return (folder / f"{name}.safetensors").read_bytes()


def names(method):
    return [copy.job for copy in method.exchange.copies]


def test_two_jobs_teach_each_other(tmp_path):
    a, b = job(tmp_path, "a"), job(tmp_path, "b", seed=1)
    batch, *_ = toy_batches()
    (first,) = steps(a, [batch])
    assert (first["measure/copies"], first["kd"]) == (0, 0)  # nobody was there, and nobody waits
    published = content(tmp_path, "a")
    (of_b,) = steps(b, [batch])
    assert (of_b["measure/copies"], names(b)) == (1, ["a"])
    assert of_b["kd"] > 0
    (second,) = steps(a, [batch])  # within `every`
    assert second["measure/copies"] == 0
    assert content(tmp_path, "a") == published
    (third,) = steps(a, [batch])
    assert (third["measure/copies"], names(a)) == (1, ["b"])
    assert content(tmp_path, "a") != published
    assert third["measure/steps_behind"] == 3  # the copy was made at step 0
    assert log(tmp_path, "a")[0] == {"epoch": 1, "step": 0, "copies": []}
    ((copy,),) = [line["copies"] for line in log(tmp_path, "b")]
    assert copy.pop("seconds_old") >= 0
    digest = hashlib.sha256(published).hexdigest()
    assert copy == {"job": "a", "epoch": 1, "step": 0, "sha256": digest}


def test_the_mean_of_the_copies_teaches(tmp_path):
    for seed, name in enumerate("bc", 1):
        steps(job(tmp_path, name, seed=seed, noise=0.1), toy_batches(n=1))
    a = job(tmp_path, "a", temperature=2.0, kd_weight=0.3)
    a.exchange.begin_step(1, (8, 8), teaching=True)
    (batch,) = toy_batches(n=1)
    out = a(batch.views)
    students = [load_student(tmp_path / f"{name}.safetensors") for name in "bc"]
    mean = sum((s.network(batch.views[0]) / 2).softmax(-1) for s in students).detach() / 2
    expected = 0.3 * kl_of_probabilities(out.logits[0], mean, 2.0)
    assert abs(a.losses(out, batch.labels, 1)["kd"] - expected) < 1e-5


def test_in_the_burn_in_nothing_is_published_or_read(tmp_path):
    steps(job(tmp_path, "b"), toy_batches(n=1))
    a = job(tmp_path, "a", burn_in=3)
    losses = steps(a, toy_batches(), epoch=2)
    assert all(of_step["kd"] == 0 for of_step in losses)
    assert [file.name for file in tmp_path.glob("*.safetensors")] == ["b.safetensors"]
    (after,) = steps(a, toy_batches(n=1), epoch=3)
    assert after["kd"] > 0
    assert log(tmp_path, "a")[0]["step"] == 4


def test_another_architecture_teaches_and_joins_late(tmp_path):
    a = job(tmp_path, "a")
    steps(a, toy_batches(n=3))
    steps(job(tmp_path, "b", network="wrn_16_1"), toy_batches(n=1))
    losses = steps(a, toy_batches(n=2))
    assert [of_step["measure/copies"] for of_step in losses] == [0, 1]
    assert a.exchange.copies[0].about["network"] == "wrn_16_1"
    assert not any(p.requires_grad for p in a.exchange.copies[0].network.parameters())
    assert not a.exchange.copies[0].network.training


def test_a_renewal_draws_no_random_numbers(tmp_path):
    steps(job(tmp_path, "b"), toy_batches(n=1))
    a = job(tmp_path, "a")
    before = torch.get_rng_state()
    a.exchange.begin_step(1, (8, 8), teaching=True)
    assert names(a) == ["b"]
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_teach_is_noted_once_and_left_out(tmp_path, caplog):
    steps(job(tmp_path, "good"), toy_batches(n=1))
    whole = content(tmp_path, "good")
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "flipped.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "not a job.safetensors").write_bytes(whole)
    (tmp_path / ".good.safetensors.x.tmp").write_bytes(whole)
    steps(job(tmp_path, "more", classes="abcde"), toy_batches(n=1))
    steps(job(tmp_path, "others", classes="wxyz"), toy_batches(n=1))
    sick = job(tmp_path, "sick")
    next(sick.peers.parameters()).data[0] = torch.nan
    sick.exchange.begin_step(1, (8, 8), teaching=True)
    tensors, about = read_weights(tmp_path / "good.safetensors")
    write_weights(tmp_path / "code.safetensors", tensors, about | {"network": "os:getcwd"})
    caplog.clear()
    a = job(tmp_path, "a")
    losses = steps(a, toy_batches())  # renewed twice
    assert [of_step["measure/copies"] for of_step in losses] == [1, 1, 1, 1]
    assert names(a) == ["good"]
    noted = dict(sorted((line.split("'")[1], line) for line in caplog.messages))
    assert list(noted) == ["code", "empty", "flipped", "half", "more", "others", "sick"]
    assert len(caplog.messages) == len(noted)
    assert "5 classes and the peers have 4" in noted["more"]
    assert "'w', 'x', 'y', 'z', and those of the data 'a', 'b', 'c', 'd'" in noted["others"]
    assert "not finite" in noted["sick"]
    assert "be imported and called" in noted["code"]
    assert str(tmp_path / "half.safetensors") in noted["half"]


def fixed(num_classes):
    """A network for images of 2x2 only, by a name that is code."""
    return echo()


def test_two_jobs_of_one_name_are_noted_once(tmp_path, caplog):
    a, other = job(tmp_path, "a"), job(tmp_path, "a", seed=1)
    steps(a, toy_batches(n=3))
    assert caplog.messages == []
    for _ in range(2):
        steps(other, toy_batches(n=2))
        steps(a, toy_batches(n=2))
    noted = [line for line in caplog.messages if "another job has the name 'a' too" in line]
    assert len(noted) == len(caplog.messages) == 2  # each job says it once


def test_a_network_for_images_of_another_size_is_left_out(tmp_path, caplog):
    def own(name):
        peers = Peers([build_network("test_exchange:fixed", 12, image_size=(2, 2))])
        return Codistillation(peers, folder=str(tmp_path), job=name)

    for name in "ab":
        own(name).exchange.begin_step(1, (2, 2), teaching=True)
    caplog.clear()
    for size, found in ((2, ["a", "b"]), (4, [])):
        c = own("c")
        c.exchange.begin_step(1, (size, size), teaching=True)
        assert names(c) == found
    assert len(caplog.messages) == 2
    assert all("takes no images of 4x4" in line for line in caplog.messages)


def test_classes_in_another_order_are_put_into_ours(tmp_path):
    (batch,) = toy_batches(n=1)
    for _ in range(2):  # the second time in the network of the first
        other = job(tmp_path, "b", classes="dcba", seed=2).eval()
        other.exchange.begin_step(1, (8, 8), teaching=True)
        a = job(tmp_path, "a")
        a.exchange.begin_step(1, (8, 8), teaching=True)
        theirs = other(batch.views).logits[0].log_softmax(-1).flip(-1)
        got = a.exchange.log_mean(batch.views[0], 1.0)
        torch.testing.assert_close(got, theirs, rtol=1e-4, atol=1e-5)


def test_a_renewed_copy_has_the_new_weights(tmp_path):
    a, b = job(tmp_path, "a", every=1), job(tmp_path, "b", every=1)
    batches = toy_batches()
    for batch in batches:
        steps(b, [batch])
        steps(a, [batch])
    published = load_student(tmp_path / "b.safetensors").network
    assert_same_tensors(a.exchange.copies[0].network.state_dict(), published.state_dict())


def test_copies_that_are_too_old_are_left_out(tmp_path, monkeypatch):
    steps(job(tmp_path, "b"), toy_batches(n=1))
    (batch,) = toy_batches(n=1)
    for oldest, copies in ((0.001, 0), (600.0, 1)):
        time.sleep(0.01)
        (losses,) = steps(job(tmp_path, "a", oldest=oldest), [batch])
        assert losses["measure/copies"] == copies


def test_a_resumed_job_goes_on_with_its_copies(tmp_path):
    """The folder's files are others by then."""
    steps(job(tmp_path, "b", network="wrn_16_1", seed=1), toy_batches(n=1))
    a = job(tmp_path, "a", every=3)
    batches = toy_batches(n=4)
    steps(a, batches[:1])
    state = {name: x.clone() for name, x in a.state_dict().items()}
    (tmp_path / "b.safetensors").unlink()
    resumed = job(tmp_path, "a", every=3, seed=5)
    resumed.load_state_dict(state)
    assert_same_tensors(resumed.state_dict(), state)
    for expected, got in zip(steps(a, batches), steps(resumed, batches), strict=True):
        assert expected == got
    assert_same_tensors(resumed.state_dict(), a.state_dict())
    assert [line["step"] for line in log(tmp_path, "a")] == [0, 3, 3]
    assert names(a) == []


def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    a = job(tmp_path / "file", "a")
    assert all(of_step["kd"] == 0 for of_step in steps(a, toy_batches()))
    assert ["nothing is published" in line for line in caplog.messages] == [True, False]


def test_what_a_killed_process_left_is_removed(tmp_path):
    for left in (".a.safetensors.x.tmp", ".b.safetensors.x.tmp"):
        (tmp_path / left).write_bytes(b"half")
    steps(job(tmp_path, "a"), toy_batches(n=1))
    assert sorted(p.name for p in tmp_path.glob("*.tmp")) == [".b.safetensors.x.tmp"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"job": None}, "needs both"),
        ({"folder": None}, "at least 2 peers"),
        ({"folder": "here"}, "give an absolute path"),
        ({"job": "a/b"}, "letters, digits"),
        ({"every": 0}, "every"),
        ({"oldest": 0.0}, "oldest"),
        ({"burn_in": 0}, "at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, message):
    peers = Peers([build_once("resnet8", C)])
    with pytest.raises(InputError, match=message):
        Codistillation(peers, **{"folder": str(tmp_path), "job": "a"} | options)


def test_peers_that_do_not_fit_are_refused(tmp_path):
    here = {"folder": str(tmp_path), "job": "a"}
    with pytest.raises(InputError, match="one peer, not 2"):
        Codistillation(Peers([build_once("resnet8", C), build_once("resnet8", C)]), **here)
    with pytest.raises(InputError, match="make it by build_network"):
        Codistillation(Peers([tiny()]), **here)
    two = Peers([build_once("resnet8", C), build_once("resnet8", C)])
    for options, message in (({"oldest": 1.0}, "give a folder"), ({"job": "a"}, "needs both")):
        with pytest.raises(InputError, match=message):
            Codistillation(two, **options)


def test_cuda_graphs_are_refused(tmp_path, monkeypatch):
    a = job(tmp_path, "a")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(InputError, match="leave out cuda_graphs"):
        a.exchange.begin_step(1, (8, 8), teaching=True)


def config(folder, name, **changes):
    options = {"folder": str(folder / "shared"), "job": name, "every": 3}
    settings = {
        "method": {"name": "codistillation"} | options,
        "network": "resnet8",
        "peers": 1,
        "epochs": 2,
        "limit_steps": 5,
        "threads": 1,
        "batch_size": 128,
        "out": str(folder / name),
        "data": DataConfig(name="digits"),
    }
    return Config(**settings | changes)


@pytest.mark.long
def test_the_history_has_the_measurements_and_the_weights_their_copies(tmp_path):
    teacher = build_method(config(tmp_path, "b"), 10, (8, 8))
    teacher.exchange.begin_step(1, (8, 8), teaching=True)
    run = Run.create(config(tmp_path, "a"))
    records = list(run.train())
    assert [record["measure/copies"] for record in records] == [0, 1]
    assert records[1]["loss/kd"] > 0
    assert records[1]["measure/steps_behind"] > 0
    assert names(Run(tmp_path / "a").method) == []
    assert names(run.method) == ["b"]


COMMAND = [sys.executable, "-m", "codistill", "train", "--method", "codistillation"]
OPTIONS = "--peers 1 --shared 0 --network resnet8 --data digits --threads 1 --method.every 3"


@pytest.mark.slow
def test_three_jobs_of_which_one_is_slow_and_one_is_killed(tmp_path):
    def start(name, epochs, batch_size):
        where = ["--method.folder", str(tmp_path / "shared"), "--method.job", name]
        more = ["--epochs", str(epochs), "--batch_size", str(batch_size)]
        out = ["--out", str(tmp_path / name)]
        return subprocess.Popen(
            COMMAND + OPTIONS.split() + where + more + out,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def wait_for(*names):
        until = time.monotonic() + 300
        while not all((tmp_path / "shared" / f"{name}.safetensors").exists() for name in names):
            assert time.monotonic() < until
            time.sleep(0.05)

    jobs = {}
    with contextlib.ExitStack() as stack:
        for name, epochs, batch_size in (("killed", 1000, 128), ("slow", 3, 16), ("fast", 8, 128)):
            jobs[name] = start(name, epochs, batch_size)
            stack.callback(jobs[name].wait)
            stack.callback(jobs[name].kill)
            wait_for("killed")
        wait_for("slow", "fast")
        jobs["killed"].send_signal(signal.SIGKILL)
        errors = {name: jobs[name].communicate()[1].decode() for name in jobs}
    assert {name: job.returncode for name, job in jobs.items()} == {
        "killed": -signal.SIGKILL,
        "slow": 0,
        "fast": 0,
    }, errors
    last = {name: log(tmp_path / "shared", name)[-1]["copies"] for name in ("slow", "fast")}
    seen = {name: [copy["job"] for copy in copies] for name, copies in last.items()}
    assert all("killed" in jobs_seen for jobs_seen in seen.values())
    assert "slow" in seen["fast"] or "fast" in seen["slow"]  # whichever ended last
    assert "does not teach" not in "".join(errors.values())
