"""Where classifiers look."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from photo_fakes import plain
from torch import nn
from toys import C, make, tiny, told, toy_split

from codistill import InputError, Network, Peers, build_network
from codistill.analysis import disagreements, grad_cam
from codistill.analysis.grad_cam import to_pixels
from codistill.analysis.map_places import map_of_network
from codistill.data import EvalBatches, Normalisation, Split, StreamedEvalBatches
from codistill.methods import FFL, KD, PCL, Independent
from codistill.networks.cutting.from_module import from_module

NORMALISATION = Normalisation((127.0, 120.0, 110.0), (70.0, 60.0, 50.0))


def batches(n=40, size=8, batch_size=10):
    return EvalBatches(toy_split(n, size, size), batch_size, NORMALISATION)


def only(method, index=(3,), **options):
    """The heat maps of one image by classifier."""
    (picture,) = grad_cam(method, batches(**options), index)
    return {m.classifier: m for m in picture.heat_maps}


def written_out(logits, maps, size=(8, 8)):
    """Equations 1 and 2 for the class of the highest logit, on maps laid side by side as one."""
    logits[0].max().backward()
    A = torch.cat(list(maps), dim=1)
    alpha = torch.cat([x.grad for x in maps], dim=1).mean(dim=(2, 3), keepdim=True)
    cam = (alpha * A).sum(dim=1, keepdim=True)
    cam = F.relu(F.interpolate(cam, size, mode="bilinear"))[0, 0]
    assert cam.max() > 0
    return (cam / cam.max()).detach().numpy()


def kept(maps):
    for x in maps:
        x.retain_grad()
    return maps


def image(index=3, **options):
    (batch,) = batches(**options).take(torch.tensor([index]))
    return batch.views[0]


# Heat maps


def test_the_map_of_a_peer_is_that_of_the_paper_written_out():
    method = make("independent", shared=0, K=2).eval()
    for k in (0, 1):
        out = method([image()])
        p = out.logits[k].detach().softmax(dim=1)
        expected = written_out(out.logits[k], kept(out.feature_maps[k : k + 1]))
        found = only(method)[f"peer{k}"]
        np.testing.assert_allclose(found.heat, expected, atol=1e-5)
        assert 0.02 < expected.mean() < 0.98
        assert found.guess == int(p.argmax())
        assert found.probability == pytest.approx(float(p.max()), rel=1e-5)


@pytest.mark.parametrize(("name", "shared"), [("ensemble", 0), ("ensemble", 2), ("fused", 2)])
def test_a_classifier_of_all_peers_looks_at_their_maps_as_at_one(name, shared):
    method = make("ffl", shared=shared, K=2, seed=1).eval()
    out = method([image()])
    expected = written_out(out.classifiers[name], kept(out.feature_maps))
    np.testing.assert_allclose(only(method)[name].heat, expected, atol=1e-5)


def test_where_all_stages_are_shared_the_one_map_counts_once():
    method = make("independent", shared=3, K=2, seed=1).eval()
    out = method([image()])
    expected = written_out(out.classifiers["ensemble"], kept(out.feature_maps[:1]))
    np.testing.assert_allclose(only(method)["ensemble"].heat, expected, atol=1e-5)


def test_maps_of_different_sizes_stand_for_their_share_of_the_image():
    method = Independent(Peers([tiny(strides=(1, 1, 2)), tiny(strides=(1, 2, 2))])).eval()
    out = method([image()])
    maps = kept(out.feature_maps)
    out.classifiers["ensemble"][0].max().backward()
    total = 0
    for x in maps:
        cam = (x.grad.mean(dim=(2, 3), keepdim=True) * x).sum(dim=1, keepdim=True)
        total = total + F.interpolate(cam * cam.numel(), (8, 8), mode="bilinear")
    expected = F.relu(total)[0, 0].detach()
    found = only(method)["ensemble"].heat
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-5)


def test_heat_lies_between_0_and_1_at_the_size_of_the_image():
    for found in only(make("ffl", K=2), size=12).values():
        assert found.heat.shape == (12, 12)
        assert found.heat.dtype == np.float32
        assert found.heat.min() >= 0
        assert found.heat.max() == pytest.approx(1)
        assert not found.blank


def test_heat_is_where_the_image_says_something():
    """One peer whose logit of class 0 is the brightness of red."""
    stage = nn.Conv2d(3, 3, 1, bias=False)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        stage.weight.copy_(torch.eye(3)[..., None, None])
        head[2].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 0]]))
    pixels = torch.zeros(1, 6, 6, 3, dtype=torch.uint8)
    pixels[0, 1:3, 4, 0] = 255
    split = Split(pixels, torch.tensor([0]))
    method = Independent(Peers([Network([stage], [3], [1], 2, head)]))
    (picture,) = grad_cam(method, EvalBatches(split, 4, Normalisation((0.0,) * 3, (1.0,) * 3)), [0])
    expected = np.zeros((6, 6))
    expected[1:3, 4] = 1
    assert np.array_equal(picture.heat_maps[0].heat, expected)


def test_where_nothing_speaks_for_the_guess_the_map_is_blank():
    network = tiny()
    nn.init.zeros_(network.head[2].weight)
    found = only(Independent(Peers([network])))["peer0"]
    assert found.blank
    assert not found.heat.any()


# Which classifiers


def test_a_leader_is_one_of_the_peers_and_has_no_map_of_its_own():
    names = only(make("okddip", K=3)).keys()
    assert names == {"peer0", "peer1", "peer2", "ensemble"}


def test_mean_teachers_have_maps_and_networks_that_were_given_have_none():
    torch.manual_seed(0)
    found = only(PCL(Peers([tiny(), tiny()])))
    assert found.keys() == {
        "peer0",
        "peer1",
        "ensemble",
        "fused",
        "mean_teacher0",
        "mean_teacher1",
    }
    assert not found["mean_teacher1"].blank
    assert only(KD(Peers([tiny()]), teacher=tiny())).keys() == {"peer0"}


# Forms of maps


@pytest.mark.parametrize("kind", ["NHWC", "tokens"])
def test_channels_last_and_tokens_give_the_map_that_channels_first_give(kind):
    torch.manual_seed(0)
    plain_network = tiny()
    *stages, last = plain_network.clone().stages
    pool = plain_network.clone().head[2]
    if kind == "NHWC":
        turn, head = Turn((0, 2, 3, 1)), nn.Sequential(Mean((1, 2)), pool)
    else:
        turn, head = Tokens(), nn.Sequential(Mean(1), pool)
    network = Network(
        [*stages, nn.Sequential(last, turn)],
        plain_network.channels,
        plain_network.reductions,
        C,
        head,
        ["NCHW", "NCHW", kind],
    )
    expected = only(Independent(Peers([plain_network])))["peer0"].heat
    found = only(FFL(Peers([network, network.clone()])))["peer0"].heat
    assert not only(Independent(Peers([network])))["peer0"].blank
    np.testing.assert_allclose(found, expected, atol=1e-5)


class Turn(nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.dims = dims

    def forward(self, x):
        return x.permute(self.dims)


class Mean(Turn):
    def forward(self, x):
        return x.mean(dim=self.dims)


class Tokens(nn.Module):
    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


class Classed(nn.Module):
    """Tokens of 4x4 pixels behind a class token, which attention gives all that the head reads."""

    def __init__(self):
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.Linear(8, 8)
        self.last = nn.LayerNorm(8)

    def forward(self, x):
        x = self.cut(x).flatten(2).transpose(1, 2)
        x = torch.cat([x.new_zeros(len(x), 1, 8), x], dim=1)
        seen = self.attention(self.norm(x))
        mixed = (seen @ seen.transpose(1, 2)).softmax(dim=2) @ seen
        return self.last(x + mixed)


class FirstToken(nn.Module):
    def forward(self, x):
        return x[:, 0]


def test_behind_a_class_token_the_map_is_that_which_the_last_attention_reads():
    torch.manual_seed(0)
    head = nn.Sequential(FirstToken(), nn.Linear(8, C))
    network = Network([Classed()], [8], [4], C, head, ["tokens"])
    found = map_of_network(network, torch.randn(2, 3, 8, 8))
    assert found.module is network.stages[0].attention
    heat = only(Independent(Peers([network, network.clone()])))
    assert not heat["peer0"].blank
    assert not heat["ensemble"].blank


def test_a_network_that_runs_as_a_whole_is_looked_into():
    """Its map is told beside the logits; see `from_module`."""

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 6, 4, stride=4)
            self.second = nn.Conv2d(6, 6, 3, padding=1)
            self.fc = nn.Linear(6, C)

        def forward(self, x):
            x = self.first(x)
            return self.fc((x + self.second(x)).relu().mean(dim=(2, 3)))

    torch.manual_seed(0)
    whole = Whole()
    network = from_module(whole, (32, 32))
    x = image(size=32)
    assert network.layouts == ("tapped",)
    first = whole.first(x)
    maps = kept([whole.second(first)])
    logits = whole.fc((first + maps[0]).relu().mean(dim=(2, 3)))
    expected = written_out(logits, maps, (32, 32))
    found = only(Independent(Peers([network])), size=32)["peer0"].heat
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_map_beside_logits_that_do_not_come_from_it_is_refused():
    class Beside(nn.Module):
        def forward(self, x):
            return x, x.mean(dim=(2, 3))

    class Second(nn.Module):
        def forward(self, pair):
            return pair[1]

    network = Network([Beside()], [3], [1], 3, Second(), ["tapped"])
    with pytest.raises(InputError, match="there is no Grad-CAM of it"):
        grad_cam(Independent(Peers([network])), batches(), [0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_networks_of_timm_have_heat_maps(name):
    torch.manual_seed(0)
    network = build_network(f"timm/{name}", C, image_size=(64, 64))
    found = only(Independent(Peers([network])), size=64)["peer0"]
    assert found.heat.shape == (64, 64)
    assert not found.blank


# Images


def test_pictures_stand_in_the_order_in_which_they_were_asked_for():
    split = toy_split(40)
    pictures = grad_cam(make("ffl", K=2), batches(batch_size=2), [31, 4, 4, 0, 9])
    assert [p.index for p in pictures] == [31, 4, 4, 0, 9]
    assert [p.label for p in pictures] == [3, 0, 0, 0, 1]
    for p in pictures:
        assert np.array_equal(p.image, split.images[p.index])
        assert [m.classifier for m in p.heat_maps] == ["peer0", "peer1", "ensemble", "fused"]
    alone = only(make("ffl", K=2), index=(9,))["fused"].heat
    np.testing.assert_allclose(pictures[4].heat_maps[3].heat, alone, atol=1e-5)


def test_every_pixel_value_comes_back():
    values = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert torch.equal(to_pixels(NORMALISATION(values), NORMALISATION), values)


def test_an_image_that_is_not_there_is_named():
    with pytest.raises(InputError, match="no image 40: there are 40"):
        grad_cam(make("ffl"), batches(), [1, 40])


def test_a_broken_image_is_named(tmp_path):
    split = plain(tmp_path, list(range(0, 200, 10)))
    (tmp_path / "class0" / "004.png").write_bytes(b"nothing")
    streamed = StreamedEvalBatches(split, 2, NORMALISATION, image_size=8)
    method = Independent(Peers([tiny(num_classes=2)]))
    with pytest.raises(InputError, match="image 2 is broken"):
        grad_cam(method, streamed, [5, 2, 7])
    assert [p.index for p in grad_cam(method, streamed, [5, 7])] == [5, 7]


def test_looking_leaves_modes_gradients_and_random_numbers_alone():
    method = make("ffl", K=2, dropout=0.5).train()
    before = torch.get_rng_state()
    with torch.no_grad():
        first, second = (only(method)["fused"].heat for _ in range(2))
    assert np.array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert {m.training for m in method.modules()} == {True}
    assert {p.grad for p in method.parameters()} == {None}


# Which images


def test_images_that_one_of_two_classifiers_knows_come_by_turns_and_the_surest_first():
    predictions = told([0] * 8, [0, 1, 0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 2, 1, 1, 1])
    # only second right: 1, 3; only first: 0, 5, 7; both right: 2; both wrong, alike: 6; else: 4
    confidence = predictions.of["fused"].confidence
    confidence[:] = torch.tensor([0.1, 0.2, 0.9, 0.3, 0.9, 0.8, 0.9, 0.2])
    assert disagreements(predictions, "peer0", "fused", 10) == [3, 5, 1, 7, 0, 4]
    assert disagreements(predictions, "peer0", "fused", 3) == [3, 5, 1]
    predictions.of["peer0"].confidence[0] = 0.75  # 0 is now the surest of its kind
    assert disagreements(predictions, "peer0", "fused", 2) == [3, 0]


def test_without_a_second_classifier_the_surest_mistakes_are_taken():
    predictions = told([0, 0, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0])
    predictions.of["peer0"].confidence[:] = torch.tensor([0.2, 0.9, 0.5, 0.2])
    assert disagreements(predictions, "peer0", None, 5) == [2, 0, 3]


def test_chosen_images_are_told_by_their_place_in_the_split():
    predictions = told([0, 0], [1, 0], [0, 0])
    predictions.index[:] = torch.tensor([17, 30])  # images between them are broken
    assert disagreements(predictions, "peer0", "fused", 5) == [17]
