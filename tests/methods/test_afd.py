"""AFD against the formulas, written out in float64, step by step."""

import functools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from toys import C, make, sgd, tiny, toy_batches
from written_out import (
    assert_equal_losses,
    batch_norm,
    cross_entropy,
    example,
    gradients,
    images,
    kl,
)

from codistill import Batch, InputError, Peers, TrainingState, build_network, fit
from codistill.data.by_name import load_dataset
from codistill.data.normalisation import Normalisation
from codistill.methods.length import PAPERS, Length, scaled_defaults, scaling_notes
from codistill.methods.papers.afd import AFD
from codistill.networks.peers import Outputs

CIFAR100 = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar100"
plain_sgd = functools.partial(torch.optim.SGD, lr=0.1)


def ring(K):
    """(peer, its teacher): each learns from the one before it, the first from the last."""
    return [(k, (k - 1) % K) for k in range(K)]


@pytest.mark.parametrize("K", [2, 3, 4])
@pytest.mark.parametrize("kd", [False, True])
def test_the_loss_on_logits_goes_round_the_ring(K, kd):
    z, labels = example(K)
    losses = make("afd", K=K, kd=kd).losses(Outputs(z, []), labels, 0)
    expected = {"ce": sum(cross_entropy(z_k, labels) for z_k in z)}
    if kd:
        expected["kd"] = sum(kl(z[k], z[t].detach(), 3.0) for k, t in ring(K))
    assert_equal_losses(losses, expected, [z])


def test_the_temperature_goes_into_the_formula():
    z, labels = example(3)
    losses = make("afd", temperature=2.0).losses(Outputs(z, []), labels, 0)
    assert abs(losses["kd"] - sum(kl(z[k], z[t], 2.0) for k, t in ring(3))) < 1e-9


def score(D, x):
    """D of one map batch, by its weights."""
    y = batch_norm(F.conv2d(x, D[0].weight, stride=2, padding=1), D[1])
    y = torch.where(y > 0, y, 0.2 * y)
    y = F.conv2d(y, D[3].weight, D[3].bias).mean((2, 3))
    return 1 / (1 + (-y).exp())


def d_loss(discriminators, maps):
    """The other's map is real, one's own is fake."""
    return sum(
        ((1 - score(discriminators[k], maps[t])) ** 2).mean()
        + (score(discriminators[k], maps[k]) ** 2).mean()
        for k, t in ring(len(maps))
    )


def told_right(discriminators, maps):
    """Of each discriminator, the share in % of the maps that it is right about."""
    told = {}
    for k, t in ring(len(maps)):
        real, fake = (score(discriminators[k], maps[j]).flatten().tolist() for j in (t, k))
        told[f"measure/d{k}_real"] = 100 * sum(s > 0.5 for s in real) / len(real)
        told[f"measure/d{k}_fake"] = 100 * sum(s < 0.5 for s in fake) / len(fake)
    return told


def g_loss(discriminators, maps):
    return sum(((1 - score(D, x)) ** 2).mean() for D, x in zip(discriminators, maps, strict=True))


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("shared", [0, 2])
def test_a_step_is_three_updates_each_of_its_own_weights_in_the_right_direction(K, shared):
    """With plain SGD for all, every weight after the step is computed here from the losses."""
    method = make("afd", shared, K).double().train()
    names = {
        "logits": [n for n, _ in method.named_parameters() if n.startswith("peers.")],
        "d": [n for n, _ in method.named_parameters() if n.startswith("discriminators.")],
    }
    names["g"] = [n for n in names["logits"] if ".heads." not in n]
    reference = make("afd", shared, K).double().train()
    reference.load_state_dict(method.state_dict())
    weights = dict(reference.named_parameters())
    views, labels = images()

    def descend(loss, which):
        wrt = [weights[n] for n in names[which]]
        for w, g in zip(wrt, gradients(loss, wrt), strict=True):
            w.data -= 0.1 * g
        assert max(g.abs().max() for g in gradients(loss, wrt)) > 0
        return loss.item()

    z = reference.peers(views).logits
    kd = sum(kl(z[k], z[t].detach(), 3.0) for k, t in ring(K))
    descend(sum(cross_entropy(z_k, labels) for z_k in z) + kd, "logits")
    maps = reference.peers(views).feature_maps  # anew, with the weights as they are now
    told = told_right(reference.discriminators, maps)
    d = descend(d_loss(reference.discriminators, [x.detach() for x in maps]), "d")
    g = descend(g_loss(reference.discriminators, maps), "g")

    optimizers = {
        "main": plain_sgd(method.peers.parameters()),
        "discriminators": plain_sgd(method.discriminators.parameters()),
        "extractors": plain_sgd([method.get_parameter(n) for n in names["g"]]),
    }
    losses = method.training_step(Batch(views, labels), optimizers, 0)
    assert losses.keys() == {"ce", "kd", "d", "g"} | told.keys()
    assert {name: losses[name].item() for name in told} == pytest.approx(told, abs=1e-9)
    assert not any(losses[name].requires_grad for name in told)
    assert losses["d"].item() == pytest.approx(d, abs=1e-9)
    assert losses["g"].item() == pytest.approx(g, abs=1e-9)
    for name, p in method.named_parameters():
        assert (p - weights[name]).abs().max() < 1e-9, name


def test_each_optimizer_holds_its_own_weights():
    method = make("afd")
    names = {p: n for n, p in method.named_parameters()}
    held = {
        name: {names[p] for group in o.param_groups for p in group["params"]}
        for name, o in method.optimizers(sgd).items()
    }
    of_peers = {n for n in names.values() if n.startswith("peers.")}
    assert held["main"] == of_peers
    assert held["discriminators"] == set(names.values()) - of_peers
    assert held["extractors"] == {n for n in of_peers if ".heads." not in n}


@pytest.mark.parametrize(
    ("options", "rates", "weight_decay", "decoupled"),
    [
        ({}, (2e-5, 2e-5), 0.0, True),
        ({"discriminator_lr": 3e-4, "adversarial_weight_decay": 0.2}, (3e-4, 2e-5), 0.2, True),
        ({"adversarial_lr": 3e-4}, (2e-5, 3e-4), 0.0, True),
        ({"adversarial_weight_decay": 0.1, "decoupled_decay": False}, (2e-5, 2e-5), 0.1, False),
    ],
)
def test_the_adversarial_optimizers_are_adam_with_settings_of_their_own(
    options, rates, weight_decay, decoupled
):
    optimizers = make("afd", **options).optimizers(sgd)
    assert isinstance(optimizers["main"], torch.optim.SGD)
    for name, lr in zip(("discriminators", "extractors"), rates, strict=True):
        (group,) = optimizers[name].param_groups
        assert isinstance(optimizers[name], torch.optim.Adam)
        assert isinstance(optimizers[name], torch.optim.AdamW) == decoupled
        assert (group["lr"], group["weight_decay"]) == (lr, weight_decay)


@pytest.mark.parametrize("decoupled", [True, False])
def test_a_decoupled_decay_scales_weights_and_a_coupled_one_moves_them_like_a_gradient(decoupled):
    method = make("afd", adversarial_weight_decay=0.1, decoupled_decay=decoupled)
    extractors = method.optimizers(sgd)["extractors"]
    (weights, *_) = (p for p in extractors.param_groups[0]["params"] if p.ndim == 4)
    before = weights.detach().clone()
    weights.grad = torch.zeros_like(weights)
    extractors.step()
    moved = before * (1 - 2e-5 * 0.1) if decoupled else before - 2e-5 * before.sign()
    assert torch.allclose(weights, moved, rtol=0, atol=1e-7)


def test_the_adversarial_optimizers_have_a_schedule_of_their_own():
    method = make("afd", adversarial_milestones=[2, 4])
    training = TrainingState(method, sgd)
    seen = []

    class Watched:
        def __iter__(self):
            lr = {n: o.param_groups[0]["lr"] for n, o in training.optimizers.items()}
            seen.append((lr["main"], lr["discriminators"], lr["extractors"]))
            yield from toy_batches(n=1)

    fit(method, Watched(), epochs=5, lr_at=lambda epoch: 0.5**epoch, state=training)
    for epoch, (main, d, g) in enumerate(seen):
        own = 2e-5 * (1, 1, 0.1, 0.1, 0.01)[epoch]
        assert (main, d, g) == (pytest.approx(0.05 * 0.5**epoch), *[pytest.approx(own)] * 2)


def test_the_default_milestones_are_75_and_150():
    factors = [make("afd").lr_factor("extractors", e, 1.0) for e in (0, 74, 75, 149, 150, 299)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("run", "lr", "milestones"),
    [
        (PAPERS, 2e-5, [75, 150]),
        (Length(epochs=30, steps=30 * 391), 2e-4, [8, 15]),
        (Length(epochs=300, steps=30 * 391), 2e-4, [75, 150]),
        (Length(epochs=3, steps=3 * 20), 1e-3, [1, 2]),  # 0.04 by the rule alone
    ],
)
def test_in_a_run_of_another_length_discriminators_travel_as_far_where_they_can(
    run, lr, milestones
):
    assert scaled_defaults(AFD, run) == {
        "discriminator_lr": pytest.approx(lr),
        "adversarial_milestones": milestones,
    }


# The game


@functools.cache
def real_images(size, n=16):
    """Some of CIFAR-100, where it is; else None."""
    if not CIFAR100.is_dir():
        return None
    images = load_dataset("cifar100", CIFAR100).train.images[:n]
    images = Normalisation((129.3, 124.1, 112.4), (68.2, 65.4, 70.4))(images)
    return F.interpolate(images, size=(size, size))


@functools.cache
def two(name, size):
    torch.manual_seed(0)
    return [build_network(name, 10, image_size=(size, size)) for _ in range(2)]


REAL = [("resnet8", 32), ("timm/test_resnet", 64), ("resnet32", 32)]


@pytest.mark.parametrize(
    ("name", "size", "source"),
    [
        *(pytest.param(name, size, "real", marks=pytest.mark.long) for name, size in REAL),
        *(("resnet8", 32, source) for source in ("random", "smooth")),
        *(("timm/test_resnet", 64, source) for source in ("random", "smooth")),
        ("wrn_16_2", 32, "random"),
        ("timm/test_efficientnet", 64, "random"),
        ("timm/test_vit", 64, "smooth"),
    ],
)
def test_no_discriminator_starts_with_a_score_outside_0_3_to_0_7(name, size, source):
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, size, size, generator=rng)
    if source == "smooth":
        images = F.avg_pool2d(images, 9, stride=1, padding=4) * 5 + 2 * images.mean((2, 3), True)
    if source == "real" and (images := real_images(size)) is None:
        pytest.skip(f"{CIFAR100} is not there")
    lowest, highest = 1.0, 0.0
    networks = two(name, size)
    with torch.no_grad():
        maps = Peers(networks).train()([images]).feature_maps
        for seed in range(10):
            torch.manual_seed(seed)
            method = AFD(Peers(networks)).train()
            scores = [method._scores(side) for side in zip(*method._pairs(maps), strict=True)]
            lowest = min(lowest, *(s.min().item() for s in scores))
            highest = max(highest, *(s.max().item() for s in scores))
    assert 0.3 <= lowest < highest <= 0.7


def played(method, steps, discriminators, extractors):
    """The last 10 steps' mean accuracies, while only the adversarial losses move anything.

    Args:
        method: AFD with two peers for images of 16x16.
        steps: of 16 images each.
        discriminators: their learning rate.
        extractors: that of the peers' feature extractors.
    """
    optimizers = method.optimizers(functools.partial(torch.optim.SGD, lr=0.0))
    optimizers["discriminators"].param_groups[0]["lr"] = discriminators
    optimizers["extractors"].param_groups[0]["lr"] = extractors
    batches = toy_batches(n=steps, B=16, size=16)
    losses = [method.training_step(batch, optimizers, 0) for batch in batches]
    return {
        side: torch.stack([x[f"measure/d{k}_{side}"] for x in losses[-10:] for k in (0, 1)]).mean()
        for side in ("real", "fake")
    }


def of_two_resnets(**options):
    torch.manual_seed(0)
    return AFD(Peers([build_network("resnet8", C) for _ in range(2)]), **options).train()


@pytest.mark.long
def test_discriminators_tell_networks_apart_in_a_short_run_and_peers_then_fool_them():
    """80 steps, where 10 epochs of CIFAR-100 have 3,500, at the learning rate of 10 epochs."""
    lr = scaled_defaults(AFD, Length(epochs=10, steps=10 * 391))["discriminator_lr"]
    method = of_two_resnets()
    told = played(method, 80, discriminators=lr, extractors=0.0)
    assert min(told.values()) > 90
    fooled = played(method, 80, discriminators=0.0, extractors=lr)
    assert fooled["fake"] < 20


@pytest.mark.long
def test_at_the_learning_rate_of_300_epochs_a_short_run_leaves_discriminators_at_chance():
    """Why the learning rate has to be scaled: their accuracies add up to 100 as at the start."""
    told = played(of_two_resnets(), 60, discriminators=2e-5, extractors=0.0)
    assert sum(told.values()) < 120


# The paper's rivals: direct alignment


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("kd", [False, True])
@pytest.mark.parametrize(("alignment", "p"), [("l1", 1), ("l2", 2)])
def test_direct_alignment_draws_a_map_to_its_teachers(K, kd, alignment, p):
    method = make("afd", K=K, kd=kd, alignment=alignment, alignment_weight=0.7).double()
    views, labels = images()
    out = method(views)
    z, maps = out.logits, [m[-1] for m in out.stages]
    expected = {"ce": sum(cross_entropy(z_k, labels) for z_k in z)}
    if kd:
        expected["kd"] = sum(kl(z[k], z[t].detach(), 3.0) for k, t in ring(K))
    differences = [maps[k] - maps[t].detach() for k, t in ring(K)]
    expected["align"] = 0.7 * sum((d.abs() ** p).mean() for d in differences)
    assert_equal_losses(method.losses(out, labels, 0), expected, maps)


@pytest.mark.parametrize("alignment", ["l1", "l2", "none"])
def test_without_an_adversary_there_is_one_optimizer_and_one_forward(alignment):
    method = make("afd", alignment=alignment)
    assert method.forwards == 1
    assert method.optimizers(sgd).keys() == {"main"}
    losses = method.training_step(toy_batches(n=1)[0], method.optimizers(sgd), 0)
    assert losses.keys() == {"ce", "kd"} | ({"align"} if alignment != "none" else set())
    assert len(list(method.parameters())) == len(list(method.peers.parameters()))


@pytest.mark.parametrize("alignment", ["l1", "l2", "none"])
def test_without_an_adversary_its_constants_are_not_noted(alignment):
    run = Length(epochs=10, steps=3910)
    (note,) = scaling_notes(make("afd"), {}, run)
    assert "discriminator_lr 2e-05 -> 0.0006" in note
    assert "adversarial_lr" not in note
    assert list(scaling_notes(make("afd", alignment=alignment), {}, run)) == []


# Peers that differ


def mixed():
    torch.manual_seed(0)
    return Peers([tiny(width=4), tiny(width=6, strides=(1, 2, 1)), tiny(width=3)])


def test_maps_meet_at_the_narrower_width_and_the_smaller_size():
    method = AFD(mixed())
    maps = method.peers([torch.randn(2, 3, 8, 8)]).feature_maps
    shapes = [(tuple(own.shape), tuple(t.shape)) for own, t in method._pairs(maps)]
    assert shapes == [((2, 12, 2, 2),) * 2, ((2, 16, 2, 2),) * 2, ((2, 12, 2, 2),) * 2]


def test_peers_of_one_shape_need_no_transfer():
    assert list(make("afd").transfers.parameters()) == []


def test_transfer_layers_are_trained_with_the_discriminators():
    method = AFD(mixed())
    before = {n: p.detach().clone() for n, p in method.transfers.named_parameters()}
    optimizers = method.optimizers(sgd)
    held = {p for g in optimizers["discriminators"].param_groups for p in g["params"]}
    assert held == {*method.discriminators.parameters(), *method.transfers.parameters()}
    for batch in toy_batches():
        method.training_step(batch, optimizers, 0)
    assert before
    assert [n for n, p in method.transfers.named_parameters() if torch.equal(p, before[n])] == []


@pytest.mark.parametrize("alignment", ["adversarial", "l1"])
def test_peers_of_different_width_and_map_size_learn_together(alignment):
    method = AFD(mixed(), alignment=alignment)
    for batch in toy_batches():
        losses = method.training_step(batch, method.optimizers(sgd), 0)
        assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize("milestones", [[0.5], [-3, 5], [0]])
def test_milestones_that_are_no_epochs_are_refused(milestones):
    with pytest.raises((InputError, TypeCheckError), match="adversarial_milestones"):
        make("afd", adversarial_milestones=milestones)


def test_one_peer_is_refused():
    with pytest.raises(InputError, match="at least 2 peers, not 1"):
        make("afd", K=1)
