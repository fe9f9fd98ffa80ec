"""Classifiers of timm and torchvision: trained together by every method, exported, started from."""

import functools
import subprocess
import sys

import pytest
import torch
from foreign import Chain
from safetensors.torch import load_file
from toys import build_once

from codistill import Batch, InputError, Peers, fit
from codistill.importing import optional
from codistill.methods import method_class
from codistill.names import METHODS
from codistill.networks import renew_equal_classifiers, start_from
from codistill.networks.build import build_network
from codistill.networks.student import save_student
from codistill.runs.run import Run
from codistill.runs.student import load_student
from codistill.settings.build_method import build_method
from codistill.settings.config import Config

timm = optional("timm", "the tests")
torchvision = optional("torchvision", "the tests")

SIZE = 64, 64
FAMILIES = [
    "timm/test_resnet",
    "timm/test_efficientnet",
    "timm/test_convnext",
    "timm/test_vit",
    "torchvision/mobilenet_v3_small",
]


def batches(views, n=2, B=4):
    rng = torch.Generator().manual_seed(0)
    return [
        Batch(
            [torch.randn(B, 3, *SIZE, generator=rng) for _ in range(views)],
            torch.randint(0, 5, (B,), generator=rng),
        )
        for _ in range(n)
    ]


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_five_families_together(name, tmp_path, monkeypatch):
    monkeypatch.setattr("codistill.networks.student.build_network", build_once)
    names = FAMILIES if name != "one" else ["timm/test_resnet"] * 3
    networks = [build_once(name, 5, image_size=SIZE) for name in FAMILIES]
    if name == "one":
        networks = [networks[0].clone() for _ in names]
    needed = {"teacher": networks[0].clone()} if name in ("kd", "shake") else {}
    method = method_class(name)(Peers(networks, 2 if name == "one" else 0), **needed)
    before = {n: p.detach().clone() for n, p in method.peers.named_parameters()}
    sgd = functools.partial(torch.optim.SGD, lr=0.05)
    records = fit(method, batches(method.views), epochs=1, make_optimizer=sgd)
    assert len(records) == 1
    moved = [n for n, p in method.peers.named_parameters() if not torch.equal(p, before[n])]
    assert {n.split(".")[1] for n in moved if n.startswith("heads")} == set(
        map(str, range(len(names)))
    )
    for peers, k in method.students().values():
        about = {"network": names[k], "classes": list("abcde"), "image_size": SIZE}
        save_student(tmp_path / "student.safetensors", peers.student(k), about)
        student = load_student(tmp_path / "student.safetensors")
        x = batches(1)[0].views[0]
        assert torch.equal(student(x), peers.student(k).eval()(x))


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_a_student_is_a_file_that_timm_loads_by_itself(name, tmp_path):
    network = build_network(f"timm/{name}", 5, image_size=SIZE).eval()
    about = {"network": f"timm/{name}", "classes": list("abcde"), "image_size": SIZE}
    save_student(tmp_path / "student.safetensors", network, about)
    settings = {"img_size": SIZE} if name == "test_vit" else {}
    model = timm.create_model(name, num_classes=5, **settings).eval()
    model.load_state_dict(load_file(tmp_path / "student.safetensors"))
    x = torch.randn(2, 3, *SIZE)
    assert torch.allclose(model(x), network(x), atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "channels", "reductions"),
    [
        ("timm/resnet10t", (64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
        ("torchvision/resnet18", (64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
        ("timm/test_vit", (64,), (16,)),
    ],
)
def test_stages_are_those_of_the_architecture(name, channels, reductions):
    network = build_network(name, 5, image_size=SIZE)
    assert (network.channels, network.reductions, network.num_classes) == (channels, reductions, 5)


@pytest.mark.long
def test_stages_agree_with_what_timm_says_of_itself():
    for name in ("resnet18", "mobilenetv3_small_050", "test_efficientnet"):
        info = timm.create_model(name, features_only=True).feature_info
        network = build_network(f"timm/{name}", 5, image_size=SIZE)
        assert list(network.reductions) == info.reduction()
        # The last stage here ends where timm's head begins, after the last 1x1 convolution.
        assert list(network.channels[:-1]) == info.channels()[:-1]


@pytest.mark.long
def test_a_student_of_fewer_classes_is_a_start_for_more(tmp_path):
    file = tmp_path / "student.safetensors"
    old = build_network("timm/test_resnet", 3, image_size=SIZE)
    about = {"network": "timm/test_resnet", "classes": list("abc"), "image_size": SIZE}
    save_student(file, old, about)
    new = build_network("timm/test_resnet", 5, image_size=SIZE)
    head = {n: x.clone() for n, x in new.head.state_dict().items()}
    start_from(new, file)
    assert all(
        torch.equal(x, old.stages.state_dict()[n]) for n, x in new.stages.state_dict().items()
    )
    assert all(torch.equal(x, head[n]) for n, x in new.head.state_dict().items())


@pytest.mark.parametrize("wrapped", [{}, {"state_dict": None}, {"model": None}])
def test_what_torch_save_wrote_is_a_start(tmp_path, wrapped):
    model = timm.create_model("test_resnet", num_classes=5)
    state = {f"module.{n}": x for n, x in model.state_dict().items()}
    torch.save({key: state for key in wrapped} or state, tmp_path / "w.pth")
    network = build_network("timm/test_resnet", 5, image_size=SIZE)
    start_from(network, tmp_path / "w.pth")
    own = network.original_state_dict()
    assert all(torch.equal(x, own[n]) for n, x in model.state_dict().items())


def test_a_start_of_another_architecture_is_refused(tmp_path):
    network = build_network("timm/test_resnet", 5, image_size=SIZE)
    with pytest.raises(InputError, match="there is no file"):
        start_from(network, tmp_path / "no.pth")
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match="does not hold the weights of this network"):
        start_from(network, tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged"):
        start_from(network, tmp_path / "w.pth")
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(InputError, match="no state dict"):
        start_from(network, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet_18", "timm has no model 'resnet_18'.*did you mean"),
        ("timm/resnet18.nothing", "Invalid pretrained tag"),
        ("torchvision/resnet19", "torchvision has no classifier 'resnet19'.*did you mean"),
        ("torchvision/fasterrcnn_resnet50_fpn", "torchvision has no classifier"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(name, message):
    with pytest.raises(InputError, match=message):
        build_network(name, 5, image_size=SIZE)


@pytest.mark.long
def test_a_size_that_a_transformer_cannot_have_is_told():
    with pytest.raises(InputError, match=r"torchvision/vit_b_16 cannot be built for.*50x50"):
        build_network("torchvision/vit_b_16", 5, image_size=(50, 50))


def test_weights_that_cannot_be_downloaded_are_told(monkeypatch):
    def offline(*_, **__):
        raise OSError("no way out")

    monkeypatch.setattr("codistill.networks.cutting.libraries.timm_weights", lambda *_: {})
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"cannot be fetched \(no way out\).*--weights"):
        build_network("timm/resnet18", 5, image_size=SIZE, pretrained=True)
    with pytest.raises(InputError, match="no published weights of network 'resnet8'"):
        build_network("resnet8", 5, pretrained=True)


def test_published_weights_of_torchvision_keep_all_but_the_last_layer(monkeypatch):
    models = torchvision.models
    published = models.get_model("mobilenet_v3_small").state_dict()
    weights = models.MobileNet_V3_Small_Weights
    libraries = "codistill.networks.cutting.libraries"
    monkeypatch.setattr(f"{libraries}.require_torchvision_weights", lambda *_: None)
    monkeypatch.setattr(weights, "get_state_dict", lambda *_, **__: dict(published))
    network = build_network("torchvision/mobilenet_v3_small", 5, image_size=SIZE, pretrained=True)
    own = network.original_state_dict()
    differing = {n for n, x in published.items() if not torch.equal(x, own[n])}
    assert differing == {"classifier.3.weight", "classifier.3.bias"}


@pytest.mark.long
def test_torchvision_is_usable_beside_a_pytorch_it_was_not_linked_to():
    """Whatever was imported first: the C++ part of the registry's torchvision wants CUDA."""
    code = (
        "from codistill.importing import optional\n"
        "import sys; assert 'torchvision' not in sys.modules\n"
        "optional('torchvision', 'a test'); optional('timm', 'a test')\n"
        "import torchvision.transforms.v2, timm\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_without_them_the_line_that_installs_them_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"network timm/x needs torchvision: pip install"):
        optional("timm", "network timm/x")


@pytest.mark.long
def test_peers_that_would_begin_equal_get_classifiers_of_their_own(tmp_path):
    """Else they would stay equal, and have nothing to teach."""
    file = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), file)
    config = Config(network="timm/test_resnet", peers=3, weights=str(file), method={"name": "dml"})
    peers = build_method(config, 10, SIZE).peers
    a, b, c = (peers.student(k).original_state_dict() for k in range(3))
    start = torch.load(file)
    assert all(torch.equal(a[n], start[n]) for n in start)
    for x, y in ((a, b), (a, c), (b, c)):
        assert {n for n in x if not torch.equal(x[n], y[n])} == {"fc.weight", "fc.bias"}


@pytest.mark.long
def test_a_run_that_started_from_a_file_goes_on_without_it(tmp_path):
    file = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), file)
    config = Config(
        network="timm/test_resnet,resnet8",
        weights=f"{file},-",
        method={"name": "dml"},
        epochs=1,
        out=str(tmp_path / "run"),
    )
    began = Run.create(config).method.state_dict()
    file.unlink()
    run = Run(tmp_path / "run")
    assert all(torch.equal(x, began[n]) for n, x in run.method.state_dict().items())
    (record,) = run.train()
    assert record["epoch"] == 1
    assert len(run.manifest.weights) == 1
    assert run.config.weights == f"{file},-"


@pytest.mark.long
def test_a_start_that_was_left_behind_is_not_another_runs(tmp_path):
    """Of a run that was killed before it had trained an epoch."""
    file, out = tmp_path / "w.pth", str(tmp_path / "run")
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), file)
    options = {"network": "timm/test_resnet", "method": {"name": "dml"}, "out": out}
    Run.create(Config(weights=str(file), **options))
    fresh = build_method(Config(**options), 10, (8, 8)).state_dict()
    own = Run.create(Config(**options)).method.state_dict()
    assert all(torch.equal(x, fresh[n]) for n, x in own.items())
    assert not (tmp_path / "run" / "start.safetensors").exists()


def test_weights_of_each_peer_and_a_trunk_exclude_each_other(tmp_path):
    options = {"network": "resnet8", "method": {"name": "dml"}, "weights": "a.pth,b.pth"}
    with pytest.raises(InputError, match="share their first stages"):
        build_method(Config(shared=2, **options), 10, (32, 32))
    with pytest.raises(InputError, match=r"weights is 'a.pth,': an entry of it is empty"):
        Config(**options | {"weights": "a.pth,"})
    with pytest.raises(InputError, match=r"weights has 3 entries, but peers is 2"):
        Config(**options | {"weights": "a,b,c"})


def test_folders_of_runs_of_different_networks_differ():
    names = ["resnet8,own:f", "resnet20,own:f", "resnet8, timm/resnet18", "own:f"]
    folders = {Config(network=name).run_folder() for name in names}
    assert len(folders) == 4
    assert not any(" " in folder.name for folder in folders)


def test_a_network_whose_class_is_defined_first_starts_from_other_classes(tmp_path):
    torch.save(Chain(3).state_dict(), tmp_path / "w.pth")
    network = build_network("foreign:Skipping", 5)
    start_from(network, tmp_path / "w.pth")
    own, given = network.original_state_dict(), torch.load(tmp_path / "w.pth")
    differing = {n for n in own if own[n].shape != given[n].shape or not own[n].equal(given[n])}
    assert differing == {"fc.weight", "fc.bias"}
    twins = [network, network.clone()]
    renew_equal_classifiers(twins)
    a, b = (n.original_state_dict() for n in twins)
    assert {n for n in a if not a[n].equal(b[n])} == {"fc.weight", "fc.bias"}


def test_published_weights_that_want_other_images_are_refused():
    with pytest.raises(InputError, match="normalised in their own way"):
        build_network("torchvision/googlenet", 5, image_size=SIZE, pretrained=True)


@pytest.mark.parametrize("name", ["timm/", "torchvision/"])
def test_a_library_without_a_name_is_told(name):
    with pytest.raises(InputError, match="no model|no classifier"):
        build_network(name, 5, image_size=SIZE)
