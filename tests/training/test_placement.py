"""Peers in processes of their own, against one process that has them all: the same bits."""

import placement_cases as cases
import pytest
import torch
from toys import assert_same_tensors, make, steps, taught, toy_batches

from codistill import InputError, distributed
from codistill.distributed import Place
from codistill.training.placement import require_division

MODULE = "placement_cases"


@pytest.mark.parametrize(
    ("name", "options", "size", "message"),
    [
        ("one", {"shared": 1}, 2, r"ONE's peers share their first stages \(shared is 1\)"),
        ("cl_ilr", {"shared": 2}, 2, r"CLILR's peers share .* or give --shared 0"),
        ("okdmde", {"K": 3}, 3, r"OKDMDE reads the weights of other peers \(diversity_weight is"),
        ("independent", {"K": 1}, 2, "there is one peer, so there is nothing to divide"),
        (
            "dml",
            {"K": 2},
            1,
            "puts 2 peers into 2 processes, and there is one: start with torchrun",
        ),
        ("dml", {"K": 2}, 3, "2 processes, or a multiple, and there are 3: start 2; or leave out"),
        ("dml", {"K": 3}, 2, "3 processes, or a multiple, and there are 2: start 3; or leave out"),
    ],
)
def test_what_cannot_be_divided_is_refused(name, options, size, message, monkeypatch):
    monkeypatch.setattr(distributed, "_place", Place(0, size, 0, size))
    with pytest.raises(InputError, match=message):
        require_division(make(name, **{"shared": 0} | options))


def test_all_other_methods_can_be_divided(monkeypatch):
    taught()
    monkeypatch.setattr(distributed, "_place", Place(0, 3, 0, 3))
    for variant in cases.FITTING:
        require_division(cases.method_of(variant, 3))
    require_division(cases.method_of("okdmde", 3))


def test_each_process_has_its_peer_and_what_is_no_peer(ranks):
    method = make("ffl", shared=0, K=2)
    steps(method, toy_batches(n=2), cases.sgd, epoch=0)
    expected = dict(method.named_parameters())
    names = expected.keys()
    of_peers = [{n for n in names if f"branches.{k}." in n or f"heads.{k}." in n} for k in (0, 1)]
    for k, (moved, weights, with_state, here, whole, after, full, graphs) in enumerate(
        ranks.run(2, f"{MODULE}:shares")
    ):
        assert here == after == names - of_peers[1 - k]
        assert_same_tensors(moved, {name: expected[name] for name in moved})
        assert weights == with_state == len(here)
        assert whole == (here if k else names)
        if k == 0:
            assert len(full["state"]) == len(names)
            assert [len(group["params"]) for group in full["param_groups"]] == [22, 8]
        assert "leave out cuda_graphs or --placement peers" in graphs


def test_only_what_is_read_is_sent_and_once(ranks):
    B, C, D, side = 6, 4, 16, 2
    logits = {0: B * C, 1: B * C}
    maps = [{k: B * D * side * side} for k in (0, 1)]
    for found in ranks.run(2, f"{MODULE}:sent"):
        assert found["dml"] == [logits]
        assert found["mcl"] == [logits, {0: B * D}, {1: B * D}]
        assert found["ffl"] == found["afd l1"] == [logits, *maps]
        assert {*found["strides"]} == {(D * side * side, 1, D * side, D)}  # as one process has them


def test_peers_draw_apart_and_common_modules_alike(ranks):
    (first, common), (second, same) = ranks.run(2, f"{MODULE}:drawing")
    assert len({*map(str, first), *map(str, second)}) == 6
    assert common == same
    assert len({*common}) == 3


def test_methods_that_read_more_than_outputs_end_at_once(ranks):
    for step, why in ranks.run(2, f"{MODULE}:reading", "weights"):
        assert step == 1
        assert "Reading has other losses in each process" in why
    for step, why in ranks.run(2, f"{MODULE}:reading", "heads"):
        assert step == 0
        assert "the method calls a part of a peer that another process has" in why


@pytest.mark.parametrize("rank", [0, 1])
def test_an_overflow_of_one_peer_holds_all(ranks, rank):
    for moved, scales in ranks.run(2, f"{MODULE}:overflow", rank):
        assert moved[0] == []
        assert len(moved[1]) > 5
        assert scales == [2.0**15, 2.0**15]


def test_a_loss_that_is_not_finite_ends_all(ranks):
    with ranks.started(2, f"{MODULE}:not_a_number"):
        pass
    assert ranks.status == [1, 1]
    (said,) = [log for log in ranks.logs() if log]
    assert "NonFiniteError: loss term 'ce' and loss term 'ekd'" in said
    assert "in epoch 1, step 3" in said


@pytest.fixture(scope="module")
def trained(ranks, once):
    """What processes with a peer each have of every case, and what one process has."""

    def train(folder):
        found = {}
        for K in (2, 3):
            first, *_ = ranks.run(K, f"{MODULE}:every_method", K)
            alone = cases.every_method(K, together=False)
            assert first.keys() == alone.keys()
            found |= {(name, K): (first[name], alone[name]) for name in alone}
        torch.save(found, folder / "found.pt")

    return torch.load(once("a_peer_in_each_process", train) / "found.pt", weights_only=False)


def assert_same(found, expected, within=0.0):
    state, history = found
    one, records = expected
    assert list(state) == list(one)
    for name, x in one.items():
        torch.testing.assert_close(state[name], x, rtol=0, atol=within, msg=name)
    for ours, theirs in zip(history, records, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"seconds", "images_per_second"}:
            exact = key.startswith("test/") or not within
            assert ours[key] == (theirs[key] if exact else pytest.approx(theirs[key], abs=within))


_CASES = [(name, 2) for name in [*cases.OF_TWO, *cases.OPTIONS, "unlike ffl", "unlike pcl"]]
_CASES += [(name, 3) for name in cases.OF_THREE]


@pytest.mark.parametrize("case", _CASES, ids=str)
def test_every_method_has_the_bits_of_one_process(trained, case):
    assert_same(*trained[case])


def test_several_processes_for_each_peer(ranks):
    first, *_ = ranks.run(4, f"{MODULE}:in_teams")
    for found, expected in zip(first, cases.in_teams(together=False), strict=True):
        assert_same(found, expected, within=1e-9)
