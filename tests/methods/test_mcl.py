"""MCL against the authors' code, written out in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from toys import make, tiny
from written_out import assert_equal_losses, cross_entropy, gradients, images, kl

from codistill import InputError, Peers
from codistill.methods.papers.mcl import MCL, contrast


def embedding(method, out, k):
    first, _, second = method.embed[k]
    h = out.stages[k][-1].mean((2, 3))
    v = (h @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
    return v / v.square().sum(dim=1, keepdim=True).sqrt()


def contrastive(s, labels):
    """Image by image: others of its class against all others; images without such left out."""
    total, count, B = 0.0, 0, len(labels)
    for b in range(B):
        others = [c for c in range(B) if c != b]
        alike = [c for c in others if labels[c] == labels[b]]
        if alike:
            log_sum = sum(s[b, c].exp() for c in others).log()
            total = total - sum(s[b, c] - log_sum for c in alike) / len(alike)
            count += 1
    return total / count


def expected_losses(method, out, labels, T=3.0, tau=0.1, weights=(0.1, 0.1, 1.0, 1.0)):
    K = len(out.logits)
    v = [embedding(method, out, k) for k in range(K)]
    s = {(i, j): v[i] @ v[j].T / tau for i in range(K) for j in range(K)}
    pairs = [(i, j) for i, j in s if i != j]
    return {
        "ce": sum(cross_entropy(z, labels) for z in out.logits),
        "vcl": weights[0] * sum(contrastive(s[i, i], labels) for i in range(K)),
        "icl": weights[1] * sum(contrastive(s[pair], labels) for pair in pairs),
        "soft_vcl": weights[2] * sum(kl(s[i, i], s[j, j].detach(), T) for i, j in pairs),
        "soft_icl": weights[3] * sum(kl(s[i, j], s[j, i].detach(), T) for i, j in pairs),
    }


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("shared", [0, 2])
def test_every_loss_and_gradient_is_that_of_the_authors_code(K, shared):
    method = make("mcl", shared, K).double()
    views, _ = images(B=8)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])  # as their batches are: two of a class
    out = method(views)
    expected = expected_losses(method, out, labels)
    assert_equal_losses(method.losses(out, labels, 0), expected, list(method.parameters()))


def test_temperatures_weights_and_width_go_into_the_formula():
    weights = (0.2, 0.3, 0.4, 0.5)
    names = ("vcl_weight", "icl_weight", "soft_vcl_weight", "soft_icl_weight")
    options = {"temperature": 2.0, "contrast_temperature": 0.5, "width": 16}
    method = make("mcl", **options, **dict(zip(names, weights, strict=True))).double()
    views, labels = images(B=8)
    out = method(views)
    assert method.embed[0][2].weight.shape == (16, 16)
    expected = expected_losses(method, out, labels, 2.0, 0.5, weights)
    assert_equal_losses(method.losses(out, labels, 0), expected, list(method.parameters()))


@pytest.mark.parametrize("K", [2, 3])
def test_with_logits_the_ensemble_teaches_two_peers_and_of_more_the_last(K):
    method = make("mcl", K=K, logits=True).double()
    views, labels = images()
    out = method(views)
    ensemble = sum(out.logits).detach() / K
    expected = {"kd": sum(kl(z, ensemble, 3.0) for z in (out.logits if K == 2 else out.logits[2:]))}
    got = method.losses(out, labels, 0)
    assert_equal_losses({"kd": got["kd"]}, expected, [out.logits])


def test_an_image_that_is_alone_of_its_class_is_left_out():
    method = make("mcl").double()
    views, _ = images()
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    out = method(views)
    got = method.losses(out, labels, 0)
    expected = expected_losses(method, out, labels)
    assert_equal_losses(got, expected, list(method.embed.parameters()))


def test_a_batch_without_two_of_a_class_has_no_hard_terms():
    method = make("mcl").double()
    views, _ = images(B=4)
    losses = method.losses(method(views), torch.arange(4), 0)
    assert (losses["vcl"].item(), losses["icl"].item()) == (0.0, 0.0)
    found = gradients(sum(losses.values()), list(method.parameters()))
    assert all(g.isfinite().all() for g in found)


def test_contrast_by_hand():
    """Three images, the first two alike: each against one other of its class and one not."""
    s = torch.tensor([[9.0, 1.0, 0.0], [1.0, 9.0, 0.5], [0.0, 0.5, 9.0]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    expected = (math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(-0.5))) / 2
    assert contrast(s[None, None], y).item() == pytest.approx(expected, abs=1e-12)


def test_images_are_of_one_class_to_the_degree_that_their_labels_say():
    rng = torch.Generator().manual_seed(0)
    s = torch.randn(1, 1, 4, 4, generator=rng, dtype=torch.float64)
    y = torch.rand(4, 3, generator=rng, dtype=torch.float64)
    total = 0.0
    for b in range(4):
        others = [c for c in range(4) if c != b]
        log_sum = sum(s[0, 0, b, c].exp() for c in others).log()
        alike = {c: (y[b] * y[c]).sum() for c in others}
        mean = sum(alike[c] * (s[0, 0, b, c] - log_sum) for c in others) / sum(alike.values())
        total = total - mean / 4
    assert contrast(s, y).item() == pytest.approx(float(total), abs=1e-12)


def test_in_the_soft_terms_what_teaches_is_held_fixed():
    """The gradient of the sum over ordered pairs is half of what it would be with both sides."""
    method = make("mcl", K=2).double()
    views, labels = images()
    out = method(views)
    s = [embedding(method, out, k) @ embedding(method, out, k).T / 0.1 for k in range(2)]
    weights = list(method.embed.parameters())
    got = gradients(method.losses(out, labels, 0)["soft_vcl"], weights)
    free = gradients(kl(s[0], s[1], 3.0) + kl(s[1], s[0], 3.0), weights)
    assert any((a - b).abs().max() > 1e-6 for a, b in zip(got, free, strict=True))


def test_similarities_are_never_standardised_logits_may_be():
    views, labels = images()
    plain, standardised = (
        make("mcl", logits=True, standardise=on).double().losses for on in (False, True)
    )
    out = make("mcl", logits=True).double()(views)
    first, second = plain(out, labels, 0), standardised(out, labels, 0)
    assert {n for n in first if not torch.equal(first[n], second[n])} == {"kd"}


def test_peers_of_different_width_have_embeddings_of_one_width():
    torch.manual_seed(0)
    method = MCL(Peers([tiny(width=8), tiny(width=4)]))
    (view,), labels = images()
    losses = method.losses(method([view.float()]), F.one_hot(labels, 4).float(), 0)
    assert all(value.isfinite() for value in losses.values())
    assert [f[0].weight.shape[1] for f in method.embed] == [32, 16]


def test_there_may_be_more_classes_than_an_embedding_is_wide():
    method = make("mcl", width=2).double()
    views, labels = images()
    out = method(views)
    expected = expected_losses(method, out, labels)
    assert_equal_losses(method.losses(out, labels, 0), expected, [out.logits])


def test_the_best_peer_is_kept():
    method = make("mcl")
    assert method.students() == {f"peer{k}": (method.peers, k) for k in range(3)}


def test_one_peer_is_refused():
    with pytest.raises(InputError, match="at least 2 peers, not 1"):
        make("mcl", K=1)
