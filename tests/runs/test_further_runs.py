"""New runs from the weights of a finished one: each peer goes on with its own."""

import pytest
import torch
from commands_of import codistill
from runs_of import tiny_config, train

from codistill import InputError
from codistill.networks import start
from codistill.networks.weights_in_file import read_tensors
from codistill.runs.run import Run
from codistill.settings.build_method import build_method
from codistill.settings.config import Config
from codistill.settings.start_files import start_files, start_fingerprints
from codistill.tensor_files import read_weights

SIZE = 8, 8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """FFL of two ResNet-8 that share two stages, after an epoch."""
    return train(tmp_path_factory.mktemp("further") / "run", epochs=1)


def built(weights, network="resnet8", peers=2, shared=0, name="independent"):
    config = Config(
        network=network, peers=peers, shared=shared, weights=str(weights), method={"name": name}
    )
    return build_method(config, 10, SIZE).peers


def weights_of(run):
    tensors, _ = read_weights(run / "weights.safetensors")
    return {n.removeprefix("peers."): x for n, x in tensors.items() if n.startswith("peers.")}


@pytest.mark.parametrize("file", ["", "weights.safetensors", "weights_best.safetensors"])
def test_each_peer_goes_on_with_its_own_weights(run, tmp_path, file, caplog):
    further = Run.create(tiny_config(tmp_path / "further", weights=str(run / file), epochs=3))
    own, before = further.method.peers.state_dict(), weights_of(run)
    assert own.keys() == before.keys()
    if "best" not in file:
        assert all(torch.equal(x, before[n]) for n, x in own.items())
    assert "of the method, fusion begins anew" in caplog.text
    assert further.config.weights.count("#peer") == 2
    assert further.manifest.weights == start_fingerprints(further.config)
    assert len(set(further.manifest.weights)) == 2


def test_peers_that_shared_go_on_apart(run):
    apart, before = built(run), weights_of(run)
    for k in range(2):
        own = apart.student(k).state_dict()
        for name, x in own.items():
            part, s, *rest = name.split(".")
            stage = f"trunk.{s}" if s in "01" else f"branches.{k}.0"
            there = f"{stage}.{'.'.join(rest)}" if part == "stages" else f"heads.{k}.{name[5:]}"
            assert torch.equal(x, before[there])


def test_a_peer_of_a_run_can_be_chosen(run):
    file = run / "weights.safetensors"
    for weights in (f"{file}#peer1,{file}#peer0", f"{run}#peer1,{run}#peer0"):
        swapped, straight = built(weights), built(run)
        for k in range(2):
            assert torch.equal(swapped.heads[k][2].weight, straight.heads[1 - k][2].weight)
    one = built(f"{file}#peer1", peers=1)
    assert torch.equal(one.heads[0][2].weight, straight.heads[1][2].weight)


def test_which_peer_is_asked_where_it_is_not_clear(run):
    with pytest.raises(InputError, match=r"weights of 2 peers, and 3 .*--peers 2.*#peer0"):
        built(run, peers=3)
    with pytest.raises(InputError, match=r"fit more than once, under 'peer0' and 'peer1'.*#peer1"):
        built(f"{run},-")


def test_a_trunk_is_not_shared_by_peers_of_different_ones(run, tmp_path):
    apart = train(tmp_path / "apart", epochs=1, shared=0)
    with pytest.raises(InputError, match="share their first stages: give one file, or shared=0"):
        built(apart, shared=2)
    assert built(run, shared=2).shared == 2


def test_a_run_that_is_not_finished_says_how_it_goes_on(tmp_path):
    Run.create(tiny_config(tmp_path / "run"))
    with pytest.raises(InputError, match=r"not finished: continue it with .*--resume"):
        built(tmp_path / "run")


def test_a_folder_that_is_no_run_names_the_files_in_it(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"is a folder: give one of model.safetensors in it"):
        built(tmp_path)


def test_equal_peers_read_a_file_once_and_say_once_what_was_found(
    run, tmp_path, caplog, monkeypatch
):
    read = []
    monkeypatch.setattr(start, "read_tensors", lambda file: read.append(file) or read_tensors(file))
    tensors, _ = read_weights(run / "student.safetensors")
    del tensors["head.2.bias"]
    torch.save({"model": tensors}, tmp_path / "w.pth")
    built(tmp_path / "w.pth")
    (line,) = caplog.messages
    assert line.endswith("under 'model'; not loaded, and drawn anew: head.2.bias")
    built(run)
    assert read == [tmp_path / "w.pth", run / "weights.safetensors"]


def test_a_run_is_built_once(tmp_path, caplog):
    own = {"network": "foreign:Softmax", "shared": 0, "method": {"name": "dml"}}
    Run.create(tiny_config(tmp_path / "run", **own))
    assert len([text for text in caplog.messages if "leave out the softmax" in text]) == 1


def test_files_that_are_given_are_left_as_they_are(tmp_path):
    config = Config(weights="a.pth,-", method={"name": "dml"})
    assert start_files(config) == config.start_weights()
    assert start_fingerprints(config) == []


def test_longer_training_is_answered_with_the_way_to_it(run):
    done = codistill("train", "--resume", run, "--epochs", "9")
    assert "leave out --epochs 9" in done.stderr
    assert f"codistill train --config {run}/config.yaml --weights {run} --out" in done.stderr
