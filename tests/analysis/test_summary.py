"""What `codistill inspect` says about a method is true, and saying it changes nothing."""

import copy
import functools
from dataclasses import asdict

import pytest
import torch
from torch import nn

from codistill.analysis.cost.summary import summarise_method
from codistill.command.inspect import render
from codistill.errors import InputError
from codistill.methods import AFD, DML, FFL, Independent
from codistill.methods.losses import ce_loss
from codistill.methods.method import Method
from codistill.networks import Network
from codistill.networks.build import build_network
from codistill.networks.peers import Peers


def make(method=FFL, names=("resnet8", "resnet8"), shared=1, num_classes=10):
    torch.manual_seed(0)
    return method(Peers([build_network(name, num_classes) for name in names], shared))


def summarise(*args, size=16, batch_size=8, **kwargs):
    return summarise_method(make(*args, **kwargs), (size, size), batch_size)


@pytest.fixture(scope="module")
def paper():
    """FFL as in its paper: two branches of ResNet-32 on CIFAR-100."""
    method = make(FFL, ("resnet32", "resnet32"), shared=2, num_classes=100)
    return summarise_method(method, (32, 32), 128)


class Averages(Method):
    """Adds what the built-in methods do not: two views, a fixed teacher, a weight of its own."""

    views = 2

    def __init__(self, peers):
        super().__init__(peers)
        self.teacher = copy.deepcopy(peers.heads[0]).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(3))
        self.first_head = peers.heads[0]
        self.dropout = nn.Dropout()
        self.seen = []

    def forward(self, views):
        self.seen.append((len(views), self.training))
        out = self.peers(views)
        out.extra["average"] = self.dropout(out.extra["ensemble"]) * self.scale.mean()
        return out

    def losses(self, out, labels, epoch):
        return {"ce": ce_loss(out.logits, labels) + ce_loss(out.extra["average"], labels)}


# --- parameters


def test_a_resnet32_of_100_classes_has_472756_parameters(paper):
    assert [peer.parameters for peer in paper.peers] == [472_756, 472_756]


def test_two_branches_of_resnet32_with_two_shared_stages_have_832920_parameters(paper):
    assert paper.peers_parameters == 832_920


def test_the_stages_of_a_network_hold_all_its_parameters(paper):
    assert sum(s.parameters for s in paper.peers[0].stages) == 472_756


def test_a_head_of_64_channels_and_100_classes_has_6500_parameters(paper):
    assert paper.peers[1].stages[-1].parameters == 6_500


def test_the_fusion_module_of_ffl_has_16228_parameters(paper):
    assert paper.modules == {"fusion": 16_228}


def test_the_method_has_the_parameters_of_its_peers_and_its_own(paper):
    assert paper.parameters == 832_920 + 16_228


def test_peers_that_share_nothing_add_up():
    summary = summarise(DML, ("wrn_16_2", "resnet20"), shared=0, num_classes=100)
    assert summary.peers_parameters == 703_284 + 278_324
    assert [peer.parameters for peer in summary.peers] == [703_284, 278_324]


def test_weights_that_two_stages_have_in_common_are_counted_once():
    first, second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
    second.weight = first.weight
    network = Network([first, second], (3, 3), (1, 1), num_classes=2)
    summary = summarise_method(Independent(Peers([network])), (4, 4), 2)
    assert summary.peers[0].parameters == 9 + 8


def test_a_method_without_modules_adds_none():
    assert summarise(DML).modules == {}


def test_own_parameters_and_modules_are_named_and_what_belongs_to_the_peers_adds_nothing():
    summary = summarise(Averages)
    assert summary.modules == {"teacher": 650, "first_head": 0, "dropout": 0, "scale": 3}


# --- shapes, names, classifiers


def test_stages_are_named_in_order_and_the_head_is_last(paper):
    names = [s.name for s in paper.peers[0].stages]
    assert names == ["stage 0", "stage 1", "stage 2", "head"]


def test_the_shapes_are_those_of_one_image(paper):
    shapes = [s.shape for s in paper.peers[0].stages]
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8), (100,)]


def test_images_need_not_be_square():
    summary = summarise_method(make(), (24, 16), 8)
    assert summary.peers[1].stages[0].shape == (16, 24, 16)


def test_the_shared_stages_are_marked_in_every_peer(paper):
    assert [[s.shared for s in peer.stages] for peer in paper.peers] == [
        [True, True, False, False]
    ] * 2


def test_independent_peers_share_no_stage():
    summary = summarise(DML, shared=0)
    assert not any(s.shared for peer in summary.peers for s in peer.stages)


def test_the_extra_classifiers_are_named(paper):
    assert paper.extra == ("ensemble", "fused")


def test_the_method_is_run_in_train_mode_on_as_many_views_as_it_asks_for(monkeypatch):
    seen = []
    forward = Averages.forward

    def spy(self, views):
        seen.append((len(views), self.training))
        return forward(self, views)

    monkeypatch.setattr(Averages, "forward", spy)
    assert summarise(Averages).views == 2
    assert set(seen) == {(2, True)}


# --- FLOPs


def test_a_multiply_add_is_two_flops():
    network = Network([nn.Conv2d(3, 4, 1)], (4,), (1,), num_classes=5)
    stage, head = summarise_method(Independent(Peers([network])), (6, 7), 2).peers[0].stages
    assert stage.flops == 2 * 3 * 4 * 6 * 7
    assert head.flops == 2 * 4 * 5


def test_a_resnet32_has_the_69_million_multiply_adds_of_the_literature(paper):
    assert paper.peers[0].flops == pytest.approx(2 * 69e6, rel=0.005)


def test_the_flops_of_a_network_are_those_of_its_stages_and_head(paper):
    assert paper.peers[0].flops == sum(s.flops for s in paper.peers[0].stages)


def test_the_flops_of_shared_stages_are_counted_once(paper):
    alone, branch = paper.peers[0].flops, sum(s.flops for s in paper.peers[0].stages[2:])
    assert paper.peers_flops == alone + branch


def test_independent_peers_have_the_flops_of_each():
    summary = summarise(DML, ("wrn_16_2", "resnet8"), shared=0)
    assert summary.peers_flops == sum(peer.flops for peer in summary.peers)


def test_a_method_that_adds_nothing_has_the_flops_of_its_peers():
    summary = summarise(DML)
    assert summary.flops == summary.peers_flops


def test_the_forward_pass_of_ffl_adds_the_fusion_module(paper):
    depthwise, pointwise, fc = 128 * 9 * 64, 128 * 64 * 64, 64 * 100
    assert paper.flops - paper.peers_flops == 2 * (depthwise + pointwise + fc)


def test_a_second_view_goes_through_the_trunk_too():
    summary = summarise(Averages)
    trunk = summary.peers[0].stages[0].flops
    assert summary.flops == summary.peers_flops + trunk


# --- memory


def test_weights_gradients_and_momentum_take_four_bytes_a_parameter(paper):
    memory = paper.memory
    assert memory.weights == memory.gradients == memory.optimizers == 4 * 849_148


def test_what_is_not_trained_has_no_gradient_and_no_momentum():
    summary = summarise(Averages)
    trained = 4 * (summary.parameters - 650)
    assert summary.memory.weights == 4 * summary.parameters
    assert summary.memory.gradients == summary.memory.optimizers == trained


def test_the_buffers_are_counted_in_bytes():
    method = make()
    expected = sum(b.nbytes for b in method.buffers())
    assert summarise_method(method, (16, 16), 8).memory.buffers == expected > 0


def test_the_estimate_exceeds_the_weights(paper):
    assert paper.memory.tensors > paper.memory.activations + 3 * paper.memory.weights


def test_the_activations_are_the_storages_that_the_graph_holds():
    class Squares(nn.Module):
        def forward(self, x):
            y = x.flatten(1).sin()  # saves x
            return y * y.view_as(y)  # saves y twice: one storage

    class OneTerm(Method):
        def losses(self, out, labels, epoch):
            return {"squares": out.logits.sum()}

    head = nn.Sequential(Squares(), nn.Linear(3 * 16, 2))  # saves y * y, and its own weight
    peers = Peers([Network([nn.Conv2d(3, 3, 1)], (3,), (1,), num_classes=2, head=head)])
    memory = summarise_method(OneTerm(peers), (4, 4), 10).memory
    assert memory.activations == 10 * 4 * (3 * 16) * 4  # image, map, y, y * y: float32


@pytest.mark.parametrize("method", [DML, FFL, Averages])
def test_the_estimate_grows_linearly_with_the_batch(method):
    method = make(method)
    a, b, c = (summarise_method(method, (16, 16), n).memory for n in (10, 20, 30))
    assert b.activations > 1.9 * a.activations
    assert abs((c.tensors - b.tensors) - (b.tensors - a.tensors)) <= 4  # bytes: each is rounded


def test_the_extrapolation_meets_what_a_whole_batch_saves():
    from codistill.analysis.cost.memory import _saved_bytes

    method = make()
    estimate = summarise_method(method, (16, 16), 32).memory.activations
    assert estimate == _saved_bytes(method.train(), (16, 16), 32, "fp32")


def test_bf16_halves_most_activations():
    full, half = (
        summarise_method(make(), (16, 16), 64, precision).memory.activations
        for precision in ("fp32", "bf16")
    )
    assert 0.45 * full < half < 0.65 * full


def test_the_estimate_is_the_sum_of_its_parts(paper):
    parts = asdict(paper.memory)
    assert len(parts) == 5
    assert paper.memory.tensors == sum(parts.values())


# --- nothing else happens


@pytest.mark.parametrize("method", [Independent, DML, FFL, Averages])
def test_weights_and_statistics_are_as_before(method):
    method = make(method)
    before = copy.deepcopy(method.state_dict())
    summarise_method(method, (16, 16), 8)
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_random_numbers_are_as_before():
    method = make(Averages)
    before = torch.get_rng_state()
    summarise_method(method, (16, 16), 8)
    assert torch.equal(torch.get_rng_state(), before)


def test_modes_are_as_before():
    method = make().eval()
    method.fusion.train()
    before = {name: m.training for name, m in method.named_modules()}
    summarise_method(method, (16, 16), 8)
    assert {name: m.training for name, m in method.named_modules()} == before


def test_what_is_frozen_stays_frozen():
    method = make()
    method.peers.trunk.requires_grad_(False)
    before = {name: p.requires_grad for name, p in method.named_parameters()}
    summarise_method(method, (16, 16), 8)
    assert {name: p.requires_grad for name, p in method.named_parameters()} == before


def test_gradients_are_as_before():
    method = make()
    first, *others = method.parameters()
    first.grad = torch.ones_like(first)
    summarise_method(method, (16, 16), 8)
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(p.grad is None for p in others)


def test_what_the_method_notes_in_itself_is_as_before():
    method = make(Averages)
    summarise_method(method, (16, 16), 8)
    assert method.seen == []


def test_two_summaries_of_a_method_are_equal():
    method = make()
    first, second = (summarise_method(method, (16, 16), 8) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_the_caller_may_have_gradients_off(guard):
    expected = summarise()
    with guard():
        assert summarise_method(make(), (16, 16), 8) == expected
        assert not torch.is_grad_enabled()


def test_a_method_in_eval_mode_has_the_same_summary():
    assert summarise_method(make().eval(), (16, 16), 8) == summarise()


def test_the_last_map_may_be_a_single_pixel():
    assert summarise(size=4).peers[0].stages[2].shape == (64, 1, 1)


@pytest.mark.parametrize(("size", "batch_size"), [((0, 16), 8), ((16, 0), 8), ((16, 16), 0)])
def test_a_size_that_is_not_positive_is_refused(size, batch_size):
    with pytest.raises(InputError, match="above 0"):
        summarise_method(make(), size, batch_size)


# --- on the terminal


def text_of(summary):
    return render(summary)


def test_the_text_has_exact_and_readable_numbers(paper):
    text = text_of(paper)
    for number in ("472,756 (0.47 M)", "832,920 (0.83 M)", "16,228", "138.3 MFLOPs", "16x32x32"):
        assert number in text


@pytest.mark.long
def test_the_text_fits_into_80_columns_uncut():
    text = text_of(summarise(FFL, ("wrn_28_10", "resnet8"), shared=0, num_classes=1000))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "37,113,784 (37.11 M)" in text


def test_peers_that_are_alike_are_shown_once(paper):
    assert text_of(paper).count("stage 0") == 1


def test_peers_that_differ_are_shown_each():
    assert text_of(summarise(DML, ("wrn_16_2", "resnet8"), shared=0)).count("stage 0") == 2


def test_the_text_names_all_classifiers(paper):
    assert "peer0, peer1, ensemble, fused" in text_of(paper)


def test_the_text_says_how_many_views_there_are():
    assert "2 views" in text_of(summarise(Averages))


def test_adam_keeps_two_numbers_for_a_weight():
    torch.manual_seed(0)
    peers = Peers([build_network("resnet8", 10) for _ in range(2)])
    method = AFD(peers)
    summary = summarise_method(method, (32, 32), 8)
    count = {
        name: sum(p.numel() for group in o.param_groups for p in group["params"])
        for name, o in method.optimizers(functools.partial(torch.optim.SGD, lr=0.1)).items()
    }
    expected = count["main"] + 2 * (count["discriminators"] + count["extractors"])
    assert summary.memory.optimizers == 4 * expected
    assert summary.forwards == 2
