"""Compiled kernels compute what PyTorch does, and nothing changes where they do not fit."""

import copy
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from toys import assert_same_tensors

from codistill import InputError, Network, Peers, build_network
from codistill.command.main import main
from codistill.kernels import batch_norm_relu, using_kernels
from codistill.kernels.build import build, built, library_file
from codistill.methods import FFL
from codistill.networks.families.layers import Layers
from codistill.runs.finished import what_is_compared
from codistill.runs.remarks import warnings_about
from codistill.runs.run import Run
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig


@pytest.fixture(scope="session")
def kernels_cache(tmp_path_factory):
    """A cache in which the kernels are built, once for all tests."""
    if not sys.platform.startswith("linux") or shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("there is no C++ compiler to build the kernels with")
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODISTILL_CACHE", str(folder))
        build()
    return folder


@pytest.fixture
def kernels(kernels_cache, monkeypatch):
    monkeypatch.setenv("CODISTILL_CACHE", str(kernels_cache))
    with using_kernels() as name:
        assert name == library_file().stem
        yield


def fused(*outputs):
    """How often the compiled operation made the graphs of these outputs."""
    seen, found, nodes = set(), 0, [y.grad_fn for y in outputs]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += node.name() == "_BatchNormReLUBackward"
            nodes += [n for n, _ in node.next_functions]
    return found


def norm(channels, **options):
    """Batch normalisation with weights, biases and statistics that are not those of its start."""
    torch.manual_seed(1)
    bn = nn.BatchNorm2d(channels, **options)
    for tensor in (bn.weight, bn.bias, bn.running_mean):
        if tensor is not None:
            nn.init.normal_(tensor)
    return bn.train()


def maps(*shape, dtype=torch.float32, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=rng).to(dtype)
    return x.to(memory_format=torch.channels_last).requires_grad_()


def separately(bn, relu, x, residual=None):
    y = bn(x)
    if residual is not None:
        y = y + residual
    return relu(y)


def results(compute, bn, x, residual, gradient, dtype=None):
    """Output, gradients and statistics, of copies in another type if one is given."""
    bn = copy.deepcopy(bn) if dtype is None else copy.deepcopy(bn).to(dtype)
    inputs = [
        None if t is None else t.detach().clone(memory_format=torch.preserve_format).to(dtype or t)
        for t in (x, residual)
    ]
    inputs = [None if t is None else t.requires_grad_() for t in inputs]
    y = compute(bn, nn.ReLU(inplace=dtype is None), *inputs)
    y.backward(gradient.to(y.dtype))
    found = {"output": y.detach(), "x": inputs[0].grad}
    if residual is not None:
        found["residual"] = inputs[1].grad
    found |= {name: p.grad for name, p in bn.named_parameters()}
    return fused(y), found | dict(bn.named_buffers())


def errors(found, exact):
    """The largest error of each, beside the largest number."""
    return {n: float((found[n].double() - x).abs().max() / x.abs().max()) for n, x in exact.items()}


SHAPES = [
    (4, 16, 8, 8),
    (2, 3, 5, 7),
    (8, 24, 1, 1),
    (2, 116, 3, 3),
    (2, 1, 6, 6),
    (5, 3, 64, 61),  # several blocks, and rows that are left over
    (9, 64, 12, 13),
]


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_gradients_and_statistics_are_as_near_to_the_truth(kernels, shape, dtype, added):
    bn, x = norm(shape[1]), maps(*shape, dtype=dtype)
    residual = maps(*shape, dtype=dtype, seed=1) if added else None
    gradient = maps(*shape, dtype=dtype, seed=2).detach()
    _, exact = results(separately, bn, x, residual, gradient, torch.float64)
    no, eager = results(separately, bn, x, residual, gradient)
    yes, ours = results(batch_norm_relu, bn, x, residual, gradient)
    assert (no, yes) == (0, 1)
    assert {n: t.dtype for n, t in ours.items()} == {n: t.dtype for n, t in eager.items()}
    assert ours["output"].is_contiguous(memory_format=torch.channels_last)
    theirs, tight = errors(eager, exact), 2e-6 if dtype == torch.float32 else 2e-5
    for name, error in errors(ours, exact).items():
        rounded = dtype == torch.bfloat16 and name in ("output", "x", "residual")
        assert error <= (1.2 * theirs[name] if rounded else tight), name


def test_variance_is_right_far_from_zero_and_where_the_mean_moves(kernels):
    x = maps(8, 16, 40, 40).detach()
    far = x + 1000
    moving = x + 100 * torch.arange(8.0)[:, None, None, None]
    for maps_ in (far, moving):
        maps_ = maps_.contiguous(memory_format=torch.channels_last)
        bn = nn.BatchNorm2d(16, momentum=1.0)
        batch_norm_relu(bn, nn.ReLU(), maps_)
        exact = maps_.double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(bn.running_mean.double(), exact.mean(1), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(bn.running_var.double(), exact.var(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_changes_no_bit(kernels, dtype):
    def run(threads):
        torch.set_num_threads(threads)
        x, residual = (maps(9, 24, 40, 40, dtype=dtype, seed=s) for s in (0, 1))
        return results(batch_norm_relu, norm(24), x, residual, x.detach())[1]

    try:
        one, two = run(1), run(2)
    finally:
        torch.set_num_threads(1)
    assert_same_tensors(one, two)


@pytest.mark.parametrize("momentum", [0.3, 0.0, None])
@pytest.mark.parametrize("counted", [True, False])
def test_statistics_move_as_momentum_says(kernels, momentum, counted):
    ours = norm(16, momentum=momentum)
    if not counted:
        ours.num_batches_tracked = None
    theirs = copy.deepcopy(ours)
    for seed in range(3):
        x = maps(4, 16, 8, 8, seed=seed)
        assert fused(batch_norm_relu(ours, nn.ReLU(), x))
        theirs(x)
    assert ours.num_batches_tracked == theirs.num_batches_tracked
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    if momentum == 0:
        assert torch.equal(ours.running_mean, norm(16).running_mean)


def test_what_is_not_a_number_stays_so(kernels):
    x = maps(4, 16, 8, 8).detach()
    x[0, 3] = float("nan")
    y = batch_norm_relu(norm(16), nn.ReLU(), x)
    assert y[:, 3].isnan().all()
    assert y[:, :3].isfinite().all()


def test_gradients_may_have_any_layout(kernels):
    x, bn = maps(4, 16, 8, 8), norm(16)
    batch_norm_relu(bn, nn.ReLU(), x).sum().backward()  # an expanded one
    ours, x.grad = x.grad, None
    separately(bn, nn.ReLU(), x).sum().backward()
    torch.testing.assert_close(ours, x.grad)


def test_a_second_derivative_is_refused(kernels):
    x = maps(4, 16, 8, 8)
    y = batch_norm_relu(norm(16), nn.ReLU(), x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_weights_that_change_in_between_do_not_change_gradients(kernels):
    gradients = []
    for change in (False, True):
        x, bn = maps(4, 16, 8, 8), norm(16)
        y = batch_norm_relu(bn, nn.ReLU(), x)
        if change:
            with torch.no_grad():
                bn.weight.zero_()
        y.sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


def with_hook(module, register="register_forward_hook"):
    getattr(module, register)(lambda *_: None)
    return module


def let_go(bn):
    bn.track_running_stats = False
    return bn


class OwnNorm(nn.BatchNorm2d):
    pass


UNFIT = {
    "eval mode": lambda: (norm(8).eval(), nn.ReLU(), maps(4, 8, 6, 6)),
    "channels first": lambda: (norm(8), nn.ReLU(), maps(4, 8, 6, 6).contiguous()),
    "a slice": lambda: (norm(8), nn.ReLU(), maps(4, 16, 6, 6)[:, :8]),
    "float64": lambda: (norm(8).double(), nn.ReLU(), maps(4, 8, 6, 6, dtype=torch.float64)),
    "bf16 weights": lambda: (norm(8).bfloat16(), nn.ReLU(), maps(4, 8, 6, 6, dtype=torch.bfloat16)),
    "ReLU6": lambda: (norm(8), nn.ReLU6(), maps(4, 8, 6, 6)),
    "a class of its own": lambda: (OwnNorm(8), nn.ReLU(), maps(4, 8, 6, 6)),
    "no weights": lambda: (norm(8, affine=False), nn.ReLU(), maps(4, 8, 6, 6)),
    "no statistics": lambda: (norm(8, track_running_stats=False), nn.ReLU(), maps(4, 8, 6, 6)),
    "statistics let go": lambda: (let_go(norm(8)), nn.ReLU(), maps(4, 8, 6, 6)),
    "a hook": lambda: (with_hook(norm(8)), nn.ReLU(), maps(4, 8, 6, 6)),
    "a hook on ReLU": lambda: (norm(8), with_hook(nn.ReLU()), maps(4, 8, 6, 6)),
    "a hook before": lambda: (
        with_hook(norm(8), "register_forward_pre_hook"),
        nn.ReLU(),
        maps(4, 8, 6, 6),
    ),
    "a hook backward": lambda: (
        norm(8),
        with_hook(nn.ReLU(), "register_full_backward_hook"),
        maps(4, 8, 6, 6),
    ),
    "a broadcast residual": lambda: (norm(8), nn.ReLU(), maps(4, 8, 6, 6), maps(4, 8, 1, 1)),
    "another type of residual": lambda: (
        norm(8),
        nn.ReLU(),
        maps(4, 8, 6, 6),
        maps(4, 8, 6, 6, dtype=torch.bfloat16),
    ),
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_what_does_not_fit_is_computed_as_ever(kernels, unfit):
    bn, relu, *tensors = UNFIT[unfit]()
    theirs = copy.deepcopy(bn)
    y = batch_norm_relu(bn, relu, *tensors)
    assert not fused(y)
    assert torch.equal(y, separately(theirs, relu, *tensors))
    assert_same_tensors(bn.state_dict(), theirs.state_dict())


class Seen(TorchDispatchMode):
    """Keeps what is dispatched."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append(func)
        return func(*args, **kwargs or {})


def test_one_number_per_channel_is_refused_as_ever(kernels):
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm_relu(norm(8), nn.ReLU(), maps(1, 8, 1, 1))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of forward_ad
def test_who_looks_on_sees_the_modules_calls(kernels):
    bn, relu, x = norm(8), nn.ReLU(), maps(4, 8, 6, 6)
    with Seen() as seen:
        batch_norm_relu(bn, relu, x)
    assert torch.ops.aten.native_batch_norm.default in seen.calls
    with torch.device("cpu"):  # a function mode
        assert not fused(batch_norm_relu(bn, relu, x))
    called = Counter()
    hook = register_module_forward_hook(lambda module, *_: called.update([type(module)]))
    batch_norm_relu(bn, relu, x)
    hook.remove()
    assert called == {nn.BatchNorm2d: 1, nn.ReLU: 1}
    with forward_ad.dual_level():
        y = batch_norm_relu(bn, relu, forward_ad.make_dual(x, torch.ones_like(x)))
        assert forward_ad.unpack_dual(y).tangent is not None
    bn.num_batches_tracked = None  # which transforms do not let change
    gradient = torch.func.grad(lambda x: batch_norm_relu(bn, relu, x).sum())(x.detach())
    assert gradient.shape == x.shape
    assert fused(batch_norm_relu(bn, relu, x))


def test_a_compiler_sees_the_modules_calls(kernels):
    def step(x):
        return batch_norm_relu(bn, relu, x)

    bn, relu, x = norm(8), nn.ReLU(), maps(4, 8, 6, 6)
    compiled = torch.compile(step, backend="eager", fullgraph=True)
    assert not fused(compiled(x))
    assert fused(step(x))


# Operations of each, counted by hand: a batch normalisation with a ReLU after it.
NETWORKS = {
    "resnet8": 7,
    "resnet110_bottleneck": 109,
    "wrn_16_1": 13,
    "vgg16": 13,
    "densenet_40_12": 39,
    "mobilenet_v1": 27,
    "shufflenet_v2": 37,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_uses_them_in_training_alone(kernels, name):
    torch.manual_seed(0)
    network = build_network(name, 10).to(memory_format=torch.channels_last).train()
    x = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    theirs = network.clone()
    z = network(x)
    with using_kernels(False):
        expected = theirs(x)
    assert (fused(z), fused(expected), fused(network.eval()(x))) == (NETWORKS[name], 0, 0)
    torch.testing.assert_close(z, expected, rtol=1e-3, atol=1e-3)
    for n, buffer in network.named_buffers():
        torch.testing.assert_close(buffer, theirs.get_buffer(n), rtol=1e-3, atol=1e-3)


def ffl_step(precision, kernels):
    """Losses, the gradients of one step in one row, and fused operations; FFL of two ResNet-20."""
    torch.manual_seed(0)
    peers = Peers([build_network("resnet20", 10) for _ in range(2)], shared=2)
    method = FFL(peers, ramp_up=0).train().to(memory_format=torch.channels_last)
    x = torch.randn(16, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    if precision == "fp64":
        method, x = method.double(), x.double()
    bf16 = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
    with using_kernels(kernels), bf16:
        out = method([x])
        losses = method.losses(out, torch.arange(16) % 10, 1)
    sum(losses.values()).backward()
    gradients = torch.cat([p.grad.double().flatten() for p in method.parameters()])
    return torch.stack([*losses.values()]).double(), gradients, fused(*out.logits)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_of_ffl_is_as_near_to_that_in_float64(kernels, precision):
    losses, gradients, _ = ffl_step("fp64", False)
    eager_losses, eager, none = ffl_step(precision, False)
    our_losses, ours, all_of_them = ffl_step(precision, True)
    assert (none, all_of_them) == (0, 25)  # 13 of the trunk, 6 of each branch
    torch.testing.assert_close(
        our_losses, losses, rtol=1e-5 if precision == "fp32" else 1e-2, atol=0
    )
    allowed = 1.2 * (eager - gradients).norm() + 1e-4 * gradients.norm()
    assert (ours - gradients).norm() <= allowed


def test_stages_that_are_computed_again_give_the_same_bits(kernels):
    def step(recompute):
        torch.manual_seed(0)
        peers = Peers([build_network("resnet8", 10)], recompute=recompute).train()
        peers.to(memory_format=torch.channels_last)
        x = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        peers([x]).logits.square().sum().backward()
        return {n: p.grad for n, p in peers.named_parameters()} | dict(peers.named_buffers())

    assert_same_tensors(step(True), step(False))


@pytest.mark.parametrize("forward", [True, False])
def test_stages_are_computed_again_as_they_were_whatever_is_used_by_then(
    kernels_cache, monkeypatch, forward
):
    """The backward pass may be outside of `using_kernels`, or alone inside."""
    monkeypatch.setenv("CODISTILL_CACHE", str(kernels_cache))

    def gradients(backward):
        torch.manual_seed(0)
        peers = Peers([build_network("resnet8", 10)], recompute=True).train()
        peers.to(memory_format=torch.channels_last)
        with using_kernels(forward):
            z = peers([maps(4, 3, 32, 32).detach()]).logits
        with using_kernels(backward):
            z.square().sum().backward()
        return {n: p.grad for n, p in peers.named_parameters()}

    assert_same_tensors(gradients(not forward), gradients(forward))


def test_nothing_is_used_unasked(kernels_cache, monkeypatch):
    monkeypatch.setenv("CODISTILL_CACHE", str(kernels_cache))
    assert built()
    assert not fused(batch_norm_relu(norm(8), nn.ReLU(), maps(4, 8, 6, 6)))
    with using_kernels(), using_kernels(False) as name:
        assert name is None
        assert not fused(batch_norm_relu(norm(8), nn.ReLU(), maps(4, 8, 6, 6)))


def test_layers_are_a_sequential_by_other_means():
    parts = [nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU6()]
    ours, theirs = Layers(*parts), nn.Sequential(*copy.deepcopy(parts))
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(ours(x), theirs(x))
    assert_same_tensors(ours.state_dict(), theirs.state_dict())
    assert torch.equal(Layers()(x), x)


def digits_run(folder: Path, kernels: bool) -> Run:
    data = DataConfig(name="digits", val_fraction=0.0)
    settings = {"network": "resnet8", "peers": 1, "epochs": 1, "threads": 1, "loggers": "none"}
    method = {"name": "independent"}
    return Run.create(
        Config(
            method=method, data=data, kernels=kernels, out=str(folder / str(kernels)), **settings
        )
    )


def test_a_run_notes_its_kernels_and_says_when_they_have_gone(kernels_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("CODISTILL_CACHE", str(kernels_cache))
    name = library_file().stem
    with_kernels, without = (digits_run(tmp_path, kernels) for kernels in (True, False))
    for run, noted in ((with_kernels, name), (without, None)):
        list(run.train())
        assert Run(run.path).manifest["processes"][0]["kernels"] == noted
        assert not [w for w in warnings_about(Run(run.path)) if "kernels" in w]
    records = [run.history()[0] for run in (with_kernels, without)]
    assert records[0]["loss/ce"] == pytest.approx(records[1]["loss/ce"], rel=1e-3)
    assert records[0]["loss/ce"] != records[1]["loss/ce"]
    monkeypatch.setenv("CODISTILL_CACHE", str(tmp_path / "empty"))
    (warning,) = [w for w in warnings_about(Run(with_kernels.path)) if "kernels" in w]
    assert f"kernels changed since this run was last trained, from {name} to None" in warning


def test_they_are_no_part_of_what_is_compared():
    compared = [what_is_compared(Config(kernels=k), "", {}, []) for k in (False, True)]
    assert compared[0] == compared[1]


def test_the_command_builds_once(kernels_cache, monkeypatch, capsys):
    monkeypatch.setenv("CODISTILL_CACHE", str(kernels_cache))
    assert main(["kernels"]) == 0
    assert capsys.readouterr().out == f"the kernels are there already: {library_file()}\n"


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("no-such-compiler", "there is no C++ compiler 'no-such-compiler'"),
        ("false", "false cannot compile the kernels"),
        ("'c++", 'the environment variable CXX is "\'c++": No closing quotation'),
        ("{folder}/no program", "{folder}/no program cannot be run (Exec format error)"),
    ],
)
def test_a_build_that_fails_leaves_nothing_and_says_why_in_a_line(
    compiler, said, monkeypatch, tmp_path
):
    monkeypatch.setenv("CODISTILL_CACHE", str(tmp_path))
    if "{folder}" in compiler:
        compiler, said = (text.replace("{folder}", str(tmp_path)) for text in (compiler, said))
        Path(compiler).write_bytes(b"no program")
        Path(compiler).chmod(0o755)
        compiler = f'"{compiler}"'
    monkeypatch.setenv("CXX", compiler)
    file = library_file()
    (file.parent / f".{file.stem}.killed").mkdir(parents=True)
    (file.parent / f".{file.name}.killed.tmp").touch()
    with pytest.raises(InputError, match=re.escape(said)) as error:
        build()
    assert "\n" not in str(error.value)
    assert built() is None
    if compiler == "false":
        assert [p.suffix for p in file.parent.iterdir()] == [".lock"]


@pytest.mark.parametrize("what", ["half a library", "no library"])
def test_a_library_that_does_not_load_is_as_if_absent(kernels_cache, monkeypatch, tmp_path, what):
    """The system does not refuse half a library: it ends a process that loads it."""
    monkeypatch.setenv("CODISTILL_CACHE", str(kernels_cache))
    whole = library_file().read_bytes()
    half, none = whole[: len(whole) // 2], b"none" + hashlib.sha256(b"none").digest()
    (tmp_path / "kernels").mkdir()
    file = tmp_path / "kernels" / library_file().name
    file.write_bytes(half if what == "half a library" else none)
    code = (
        "from codistill.kernels import using_kernels\n"
        "with using_kernels() as name:\n"
        "    print(name)\n"
    )
    environment = os.environ | {"CODISTILL_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "None\n", (done.returncode, done.stderr)


def test_a_network_of_stages_uses_them_too(kernels):
    stage = Layers(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    network = Network([stage], (8,), (1,), 4).to(memory_format=torch.channels_last)
    assert fused(network(maps(2, 3, 8, 8))) == 1


def test_the_benchmark_runs(kernels):
    figures = importlib.import_module("kernels").main(["--rounds=1", "--batch=2", "--maps=1"])
    assert len(figures) == 12
    assert all(figure.value > 0 for figure in figures)
