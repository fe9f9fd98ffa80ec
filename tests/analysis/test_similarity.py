"""How alike the feature maps of peers are."""

from itertools import pairwise

import pytest
import torch
from toys import C, make, tiny, toy_split

from codistill import InputError, Network, Peers
from codistill.analysis import MapSimilarity, map_similarities
from codistill.analysis.similarity import linear_cka
from codistill.data import EvalBatches, Normalisation
from codistill.methods import Independent


def batches(n: int = 40, size: int = 10) -> EvalBatches:
    return EvalBatches(toy_split(n), size, Normalisation((127.0,) * 3, (70.0,) * 3))


def hsic(K, L):
    """Song et al. 2012, equation 5, as it is printed."""
    n = len(K)
    K, L = K.clone().fill_diagonal_(0), L.clone().fill_diagonal_(0)
    one = torch.ones(n, dtype=K.dtype)
    middle = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    return (torch.trace(K @ L) + middle - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3))


def written_out(batches_of_maps):
    """Nguyen et al. 2021, equation 2, of equally large batches."""
    parts = []
    for x, y in batches_of_maps:
        X, Y = x.flatten(1).double(), y.flatten(1).double()
        K, L = X @ X.T, Y @ Y.T
        parts.append(torch.stack([hsic(K, L), hsic(K, K), hsic(L, L)]))
    kl, kk, ll = torch.stack(parts).mean(dim=0)
    return float(kl / (kk.sqrt() * ll.sqrt()))


def compare(*networks: Network, shared: int = 0, **options) -> list[MapSimilarity]:
    method = Independent(Peers(networks, shared))
    return list(map_similarities(method, batches(), **options).pairs)


def pair(seed: int = 0) -> list[Network]:
    torch.manual_seed(seed)
    return [tiny(), tiny()]


# The estimator


def test_cka_is_that_of_the_papers_written_out():
    torch.manual_seed(0)
    x = torch.randn(12, 3, 2, 2) + 5
    y = torch.cat([x.flatten(1)[:, :5], torch.randn(12, 4)], dim=1)
    expected = written_out([(x, y)])
    assert 0.2 < expected < 0.95
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-5)


def test_neither_rotation_nor_scale_nor_shift_changes_cka():
    torch.manual_seed(0)
    x = torch.randn(10, 6)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6))
    assert linear_cka(x, 3 * x @ rotation + 100) == pytest.approx(1, abs=1e-4)


def test_unrelated_maps_have_a_cka_of_about_0_even_in_small_batches():
    torch.manual_seed(0)
    found = [linear_cka(torch.randn(16, 500), torch.randn(16, 500)) for _ in range(50)]
    assert abs(sum(found) / 50) < 0.05  # without the correction it is above 0.9
    assert min(found) < 0


def test_a_map_that_is_always_the_same_has_no_cka():
    assert linear_cka(torch.zeros(8, 3), torch.randn(8, 3)) is None


# Peers


def test_every_stage_of_independent_peers_is_compared_over_batches():
    method = Independent(Peers(pair()))
    found = map_similarities(method, batches())
    assert [(p.first_stage, p.second_stage, p.last) for p in found.pairs] == [
        (1, 1, False),
        (2, 2, False),
        (3, 3, True),
    ]
    assert (found.images, found.available, found.shared, found.notes) == (40, 40, 0, ())
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outs = [method.eval()(b.views).stages for b in batches().take(order)]
    for s, p in enumerate(found.pairs, 1):
        assert p.cka == pytest.approx(written_out([(o[0][s], o[1][s]) for o in outs]), rel=1e-4)


def test_cosines_are_of_the_last_maps_of_one_image_and_of_different_ones():
    method = Independent(Peers(pair()))
    last = map_similarities(method, batches()).pairs[-1]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    same, others = [], []
    with torch.inference_mode():
        for batch in batches().take(order):
            first, second = (x.flatten(1) for x in method.eval()(batch.views).feature_maps)
            first, second = first / first.norm(dim=1)[:, None], second / second.norm(dim=1)[:, None]
            same += (first * second).sum(1).tolist()
            others += [float(first[i] @ second[i - 1]) for i in range(len(first))]
    assert last.cosine == pytest.approx(sum(same) / 40, rel=1e-4)
    assert last.cosine_other_images == pytest.approx(sum(others) / 40, rel=1e-4)


def test_a_peer_is_like_its_copy():
    network = tiny()
    for found in compare(network, network.clone()):
        assert found.cka == pytest.approx(1)
    assert found.cosine == pytest.approx(1)
    assert found.cosine_other_images < 0.99


def test_every_two_of_three_peers_are_compared():
    found = compare(*pair(), tiny())
    names = [(p.first, p.second) for p in found if p.last]
    assert names == [("peer0", "peer1"), ("peer0", "peer2"), ("peer1", "peer2")]
    assert len({p.cka for p in found}) == 9


def test_shared_stages_are_left_out_and_said():
    found = map_similarities(Independent(Peers(pair(), shared=2)), batches())
    assert [p.first_stage for p in found.pairs] == [3]
    assert found.shared == 2
    assert found.notes == ("the first 2 stages are shared by all peers: the same map, left out",)


def test_of_peers_of_different_depth_the_last_stages_are_compared():
    deep = tiny(strides=(1, 1, 2, 2))
    method = Independent(Peers([tiny(), deep, tiny()]))
    found = map_similarities(method, batches())
    stages = [(p.first, p.second, p.first_stage, p.second_stage) for p in found.pairs]
    assert stages == [
        ("peer0", "peer1", 3, 4),
        *(("peer0", "peer2", s, s) for s in (1, 2, 3)),
        ("peer1", "peer2", 4, 3),
    ]
    assert "3, 4, 3 stages" in found.notes[0]


def test_maps_of_different_shapes_have_a_cka_but_no_cosine():
    (*_, last) = compare(tiny(), tiny(width=6))
    assert last.last
    assert last.cka is not None
    assert last.cosine is None
    assert last.cosine_other_images is None


def test_no_more_images_are_looked_at_than_asked_for():
    method = Independent(Peers(pair()))
    found = map_similarities(method, batches(), images=17)
    assert (found.images, found.available) == (17, 40)
    assert found == map_similarities(method, batches(), images=17)


def test_images_are_drawn_from_the_whole_split():
    """A split in the order of its classes must not be cut off after the first of them."""
    seen = []

    class Spy(Independent):
        def __init__(self, peers):
            super().__init__(peers)
            peers.register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))

    map_similarities(Spy(Peers(pair())), batches(), images=20)
    shown = torch.cat(seen)
    whole = torch.cat([b.views[0] for b in batches()])
    places = [int((whole == x).flatten(1).all(dim=1).nonzero()) for x in shown]
    assert len(set(places)) == 20
    assert max(places) > 30
    assert any(b < a for a, b in pairwise(places))


def test_a_last_batch_of_too_few_is_left_out():
    found = map_similarities(Independent(Peers(pair())), batches(n=23))
    assert (found.images, found.available) == (20, 23)


def test_what_cannot_be_compared_is_said():
    with pytest.raises(InputError, match="there is one peer"):
        map_similarities(Independent(Peers([tiny()])), batches())
    with pytest.raises(InputError, match="share all stages"):
        map_similarities(Independent(Peers(pair(), shared=3)), batches())
    with pytest.raises(InputError, match="4 images or more, not 3"):
        map_similarities(Independent(Peers(pair())), batches(n=3))


def test_comparing_leaves_modes_and_random_numbers_alone():
    method = make("ffl", K=2, dropout=0.5).train()
    before = torch.get_rng_state()
    assert map_similarities(method, batches()) == map_similarities(method, batches())
    assert torch.equal(torch.get_rng_state(), before)
    assert {m.training for m in method.modules()} == {True}
    assert method.peers.num_classes == C
