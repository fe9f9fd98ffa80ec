"""Several processes against one: real ones that talk by gloo, in float64."""

import itertools
from pathlib import Path

import distributed_cases as cases
import pytest
import torch
from toys import C, assert_same_tensors, make, toy_split

from codistill import Batch, InputError, distributed
from codistill.data.batches.in_memory import Augmentation, EvalBatches, TrainBatches
from codistill.data.batches.mixing import MixedBatches, Mixing
from codistill.distributed import Place
from codistill.training import sync_bn

MODULE = "distributed_cases"


@pytest.fixture
def process(monkeypatch):
    """Makes this process believe that it is one of several."""

    def is_one(rank, size):
        monkeypatch.setattr(distributed, "_place", Place(rank, size, rank, size))

    return is_one


def assert_equal(found, expected, within=1e-9):
    """All processes end with the same bits, and with what one process has, up to rounding."""
    (state, history), *others = found
    for other, _ in others:
        assert_same_tensors(state, other)
    one, records = expected
    assert state.keys() == one.keys()
    for name, x in one.items():
        torch.testing.assert_close(state[name], x, rtol=0, atol=within, msg=name)
    for ours, theirs in zip(history, records, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"seconds", "images_per_second"}:
            exact = key.startswith("test/") and within == 1e-9  # sums of float32
            assert ours[key] == (theirs[key] if exact else pytest.approx(theirs[key], abs=within))


@pytest.mark.parametrize(("size", "unit"), [(2, 0), (3, 0), (3, 2), (2, 4)])
def test_every_image_of_a_batch_is_in_one_piece(process, size, unit):
    for images in range(2, 30):
        pieces = []
        for rank in range(size):
            process(rank, size)
            pieces.append(distributed.piece(images, unit))
        if len(pieces[0]) == images:  # everybody has the whole
            assert images < 2 * size or images // max(1, unit) < size
            assert pieces == [range(images)] * size
            continue
        assert list(itertools.chain(*pieces)) == list(range(images))
        assert min(map(len, pieces)) >= 2
        assert all(piece.start % max(1, unit) == 0 for piece in pieces)
        assert max(map(len, pieces)) - min(map(len, pieces)) <= max(1, unit) + images % max(1, unit)


@pytest.mark.parametrize("mixing", [None, Mixing(mixup=0.5), Mixing(cutmix=0.5)])
def test_pieces_of_batches_are_those_of_one_process(process, mixing):
    def batches():
        made = TrainBatches(
            toy_split(21), 16, cases.NORMALISATION, Augmentation(1, rand_augment=5), 2, seed=1
        )
        return MixedBatches(made, C, mixing, 1) if mixing else made

    def of(rank):
        process(rank, 3)
        return list(batches())

    whole = list(batches())
    for one, *pieces in zip(whole, *map(of, range(3)), strict=True):
        repeated = len(one.labels) == 5
        for view in range(2):
            together = [piece.views[view] for piece in pieces]
            for piece in together if repeated else [torch.cat(together)]:
                assert torch.equal(piece, one.views[view])
        labels = [piece.labels for piece in pieces]
        assert torch.equal(labels[0] if repeated else torch.cat(labels), one.labels)


def test_pieces_know_their_share(process):
    labels = torch.zeros(4).long()
    batch = Batch([torch.zeros(4, 3, 2, 2)], labels)
    assert (batch.share, batch.images, batch.repeated) == (1, 4, False)
    whole = batch.piece_of(4)
    assert (whole.share, whole.images, whole.repeated) == (1, 4, False)
    process(0, 2)
    assert (batch.share, batch.images, batch.repeated) == (0.5, 8, False)
    assert (whole.share, whole.images, whole.repeated) == (0.5, 4, True)
    piece = batch.piece_of(10)
    assert (piece.share, piece.images, piece.repeated) == (0.4, 10, False)
    views, same = piece  # still a pair
    assert views is batch.views
    assert same is labels


def test_batches_are_dealt_out(process):
    batches = EvalBatches(toy_split(11), 4, cases.NORMALISATION)
    whole = list(batches)
    for rank in range(3):
        (mine,) = batches.dealt(rank, 3)
        assert torch.equal(mine.views[0], whole[rank].views[0])
    assert [len(b.labels) for b in batches.dealt(0, 2)] == [4, 3]


def test_mixing_in_pieces_needs_codistills_batches(process):
    process(1, 2)

    class Own(list):
        def start_at(self, epoch, step=0):
            pass

    with pytest.raises(InputError, match=r"Mixup and CutMix in several processes .* not Own"):
        next(iter(MixedBatches(Own(), C, Mixing(mixup=0.5))))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Place()),
        ({"WORLD_SIZE": "4"}, Place()),  # a launcher's machine without a process
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
            Place(5, 8, 1, 4),
        ),
        (
            {
                "SLURM_PROCID": "3",
                "SLURM_STEP_NUM_TASKS": "7",
                "SLURM_LOCALID": "3",
                "SLURM_STEP_TASKS_PER_NODE": "4,3",
            },
            Place(3, 7, 3, 4),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "7"}, Place()),  # a batch script without srun
    ],
)
def test_launchers(variables, expected, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert distributed.launched() == expected


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu07", "gpu07"), ("gpu[07-09,12]", "gpu07"), ("a1,b2", "a1"), ("n-[3,5]", "n-3")],
)
def test_the_first_node_of_a_job(monkeypatch, nodes, first):
    monkeypatch.setenv("SLURM_STEP_NODELIST", nodes)
    monkeypatch.setenv("SLURM_JOB_ID", "1234567")
    monkeypatch.setenv("SLURM_STEP_ID", "2")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    distributed._find_first()
    assert distributed.os.environ["MASTER_ADDR"] == first
    assert distributed.os.environ["MASTER_PORT"] == "34569"


def test_a_launcher_without_numbers(monkeypatch):
    monkeypatch.setenv("RANK", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="the launcher's variables RANK, WORLD_SIZE"):
        distributed.launched()


@pytest.mark.long
def test_batch_normalisation_of_each_process_has_the_statistics_of_all(ranks):
    together = ranks.run(3, f"{MODULE}:local_statistics")
    for variant in cases.LOCAL:
        assert_equal([of[variant] for of in together], cases.in_pieces(variant))


def test_every_option_trains_as_in_one_process(ranks):
    together = ranks.run(3, f"{MODULE}:with_options")
    alone = cases.with_options(together=False)
    for name in cases.OPTIONS:
        of_weights = name in ("class weights", "all of them")  # whose sum is one of float32
        found = [of[name] for of in together]
        assert_equal(found, alone[name], within=1e-6 if of_weights else 1e-9)


def test_metrics_are_those_of_one_process_to_the_bit(ranks):
    together = ranks.run(3, f"{MODULE}:evaluations")
    alone = cases.evaluations(together=False)
    assert together == [alone] * 3
    assert alone[1] == list(range(7))


def test_a_loss_that_is_not_finite_ends_all(ranks):
    with ranks.started(3, f"{MODULE}:not_a_number"):
        pass
    assert ranks.status == [1, 1, 1]
    said = [log for log in ranks.logs() if log]
    assert len(said) == 1  # the first one to fail
    assert "NonFiniteError: loss term 'ce' and loss term 'kd' is not finite" in said[0]
    assert "in epoch 1, step 3" in said[0]


@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_process_cannot_use_ends_all(ranks, rank):
    with ranks.started(2, f"{MODULE}:not_usable", rank):
        pass
    logs = ranks.logs()
    assert f"InputError: process {rank} has no images" in logs[rank]
    assert logs[1 - rank] == ""
    assert ranks.status == [1, 1]


def test_tensors_of_all_kinds_are_added_up(ranks):
    for ours, theirs in ranks.run(3, f"{MODULE}:sums"):
        assert all(torch.equal(x, torch.full((2, 3), 6, dtype=x.dtype)) for x in ours[:3])
        assert torch.equal(ours[3], 3 * torch.arange(24.0).view(1, 2, 3, 4))
        assert all(torch.equal(x, torch.full((2, 3), 1, dtype=x.dtype)) for x in theirs)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed by Linux")
def test_no_thread_is_left_that_would_abort_the_end(ranks):
    assert ranks.run(2, f"{MODULE}:threads_left") == [[], []]


def test_all_stop_at_the_same_step(ranks):
    assert ranks.run(3, f"{MODULE}:stopped", 1) == [(0, 3)] * 3


def test_weights_that_part_are_noticed(ranks):
    with ranks.started(2, f"{MODULE}:parted"):
        pass
    assert ranks.status == [1, 1]
    assert "RuntimeError: the weights of the 2 processes are not the same" in str(ranks.logs())


def test_processes_draw_random_numbers_of_their_own(ranks):
    (first, state), (second, other) = ranks.run(2, f"{MODULE}:drawing")
    assert len({*first, *second}) == 6
    assert_same_tensors(state, other)


def test_loops_of_ones_own(ranks):
    found = ranks.run(3, f"{MODULE}:own_loop")
    expected = cases.held_still(cases.method_of("dml"))
    optimizer = cases.sgd(expected.parameters())
    for batch in cases.train_batches(48, 12):
        expected.training_step(batch, {"main": optimizer}, 0)
    for state in itertools.chain(*found):
        for name, x in expected.named_parameters():
            torch.testing.assert_close(state[name], x, rtol=0, atol=1e-9)


def test_loops_of_others_sum_gradients_themselves(ranks):
    """As docs/loops.md says; three backward passes, each with an optimizer of its own."""
    expected = cases.held_still(cases.method_of("afd"))
    optimizers = expected.optimizers(cases.sgd)
    for batch in cases.train_batches(48, 12):
        expected.training_step(batch, optimizers, 0)
    for state in ranks.run(3, f"{MODULE}:loop_of_others"):
        for name, x in expected.state_dict().items():
            torch.testing.assert_close(state[name], x, rtol=0, atol=1e-9)


def test_normalisation_on_gpus_is_that_of_the_team(monkeypatch):
    method = make("dml")
    team = distributed.Group(0, 2, "the processes of peer 0")
    monkeypatch.setattr(distributed, "_division", distributed._Division(2, team, team))
    monkeypatch.setattr(sync_bn, "device_of", lambda _: torch.device("cuda"))
    sync_bn.synchronise(method)
    norms = [m for m in method.modules() if isinstance(m, torch.nn.SyncBatchNorm)]
    assert {norm.process_group for norm in norms} == {team.handle}


@pytest.fixture(scope="module")
def trained(ranks, once):
    """What processes have of every method, and what one process has, by batch normalisation."""

    def train(folder):
        found = {}
        for size, bn in ((2, "frozen"), (3, "synchronised")):
            together = ranks.run(size, f"{MODULE}:every_method", bn)
            alone = cases.every_method(bn, together=False)
            found[bn] = {v: ([of[v] for of in together], alone[v]) for v in cases.VARIANTS}
        torch.save(found, folder / "found.pt")

    return torch.load(once("every_method_in_processes", train) / "found.pt", weights_only=False)


@pytest.mark.parametrize("bn", ["frozen", "synchronised"])
@pytest.mark.parametrize("variant", cases.VARIANTS)
def test_every_method_trains_as_in_one_process(trained, variant, bn):
    assert_equal(*trained[bn][variant])
