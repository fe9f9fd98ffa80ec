"""Weights as trainers leave them: found whatever is around them, and nothing in them executed."""

import argparse
import collections
import io
import pathlib
import pickle
import types
import zipfile

import numpy as np
import pytest
import torch
from foreign import Chain
from safetensors.torch import save_file
from torch import nn

from codistill import InputError
from codistill.importing import optional
from codistill.networks import from_module, start_from
from codistill.networks.build import build_network
from codistill.networks.cutting.libraries import _cut
from codistill.networks.pickled import read_pickled
from codistill.networks.positions import resampled

SIZE = 64, 64


@pytest.fixture(scope="module")
def cut():
    return from_module(Chain(5), SIZE)


@pytest.fixture
def network(cut):
    """A network of five classes, under the names of the module that it was cut out of."""
    return cut.clone()


def state(num_classes=5, seed=1):
    torch.manual_seed(seed)
    return Chain(num_classes).state_dict()


def under(prefix, tensors):
    return {f"{prefix}{name}": x for name, x in tensors.items()}


def saved(folder, content, **options):
    torch.save(content, folder / "w.pth", **options)
    return folder / "w.pth"


def assert_started(network, expected, but=()):
    own = network.original_state_dict()
    assert {n for n in own if not torch.equal(own[n], expected[n].to(own[n].dtype))} == set(but)


class Tags(dict):
    """A dict of a trainer's own, with attributes."""


class Trap:
    """Executes something if a reader is careless."""

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("executed"),)


LEFT_BY_TRAINERS = {
    "args": argparse.Namespace(model="chain", out=pathlib.Path("out"), seen={1, 2}),
    "best": np.float64(71.5),
    "curve": np.arange(3.0),
    "names": np.array(["cat", "dog"], dtype=object),
    "tags": Tags(a=1),
    "counts": collections.defaultdict(list, {"a": [1]}),
    "counter": collections.Counter("aab"),
    "device": torch.device("cpu"),
    "dtype": torch.float16,
    "place": types.SimpleNamespace(a=[torch.zeros(2)]),
    "size": torch.Size([1, 2]),
    "trap": Trap(),
}


@pytest.mark.parametrize(
    "options",
    [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}],
    ids=["today", "before-1.6", "protocol-4"],
)
def test_what_a_trainer_leaves_beside_the_weights_is_passed_over(
    tmp_path, monkeypatch, network, options
):
    monkeypatch.chdir(tmp_path)
    sgd = torch.optim.SGD(Chain().parameters(), 0.1, momentum=0.9).state_dict()
    content = LEFT_BY_TRAINERS | {"epoch": 3, "optimizer": sgd, "state_dict": state()}
    start_from(network, saved(tmp_path, content, **options))
    assert_started(network, state())
    assert not (tmp_path / "executed").exists()


def test_files_without_checksums_are_read(tmp_path, network):
    torch.serialization.set_crc32_options(False)
    try:
        file = saved(tmp_path, {"state_dict": state()})
    finally:
        torch.serialization.set_crc32_options(True)
    start_from(network, file)
    assert_started(network, state())


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_tensors_are_those_that_were_saved(tmp_path, options):
    base = torch.arange(24.0).view(4, 6)
    content = {
        "view": base[1:, ::2],
        "turned": base.t(),
        "parameter": nn.Parameter(base),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3),
        "bool": torch.tensor([True, False]),
        "complex": torch.tensor([1 + 2j]),
        **{str(d): base.to(d) for d in (torch.bfloat16, torch.float16, torch.int8, torch.float64)},
    }
    found = read_pickled(saved(tmp_path, content, **options))
    for name, x in content.items():
        assert found[name].dtype == x.dtype, name
        assert torch.equal(found[name], x), name


def test_arrays_of_numpy_are_weights(tmp_path, network):
    arrays = {n: x.numpy() for n, x in state().items()}
    arrays["stem.0.weight"] = np.asfortranarray(arrays["stem.0.weight"])
    arrays["fc.bias"] = arrays["fc.bias"].astype(">f4")
    start_from(network, saved(tmp_path, arrays))
    assert_started(network, state())
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays}))
    start_from(network, tmp_path / "w.pkl")


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "_orig_mod.", "model.", "backbone.", "encoder.", "module._orig_mod."),
        *("_orig_mod.module.", "model.backbone.module.", "network.encoder.model."),
    ],
)
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "net", "teacher"])
def test_names_may_begin_with_anything(tmp_path, network, prefix, key):
    names = under(prefix, state())
    start_from(network, saved(tmp_path, {key: names, "epoch": 1} if key else names))
    assert_started(network, state())


def test_a_wrapper_may_stand_inside_a_name(tmp_path, network):
    names = {n.replace("blocks.", "blocks._orig_mod.module."): x for n, x in state().items()}
    start_from(network, saved(tmp_path, names))
    assert_started(network, state())


def test_what_belongs_to_something_else_is_passed_over_and_named(tmp_path, network, caplog):
    content = under("model.", state()) | {"criterion.weight": torch.ones(3)}
    start_from(network, saved(tmp_path, {"state_dict": content}))
    assert "the weights are those under 'state_dict.model'" in caplog.text
    beside = state() | {"projector.0.weight": torch.ones(3), "stem.total_ops": torch.ones(1)}
    start_from(network, saved(tmp_path, beside))
    assert caplog.messages[1].endswith("w.pth: not used: projector.0.weight")


def test_a_plain_file_of_weights_needs_no_words(tmp_path, network, caplog):
    start_from(network, saved(tmp_path, state()))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model", "model_ema"),
        ("state_dict", "state_dict_ema"),
        ("student", "teacher"),
        ("a", "a.b"),
    ],
)
def test_where_two_fit_both_are_said_and_one_can_be_chosen(tmp_path, network, one, other):
    twice = under(f"{one}.", state(seed=1)) | under(f"{other}.module.", state(seed=2))
    file = saved(tmp_path, twice)
    with pytest.raises(InputError, match=rf"more than once.*{one}' and '{other}'.*w.pth#{other}"):
        start_from(network, file)
    start_from(network, tmp_path / f"w.pth#{other}")
    assert_started(network, state(seed=2))
    if other != "a.b":
        start_from(network, tmp_path / f"w.pth#{one}")
        assert_started(network, state(seed=1))
    with pytest.raises(InputError, match=rf"no weights under 'no': there are {one}"):
        start_from(network, tmp_path / "w.pth#no")


def test_two_of_which_one_fits_or_that_are_equal_are_no_question(tmp_path, network, caplog):
    larger = {"teacher": {"conv.weight": torch.ones(3, 3)}, "student": state()}
    start_from(network, saved(tmp_path, larger))
    assert_started(network, state())
    start_from(network, saved(tmp_path, {"model": state(seed=2), "ema": state(seed=2)}))
    assert_started(network, state(seed=2))
    caplog.clear()
    start_from(network, saved(tmp_path, state() | {"ema": state()}))
    assert not caplog.messages


def test_a_name_with_a_number_sign_is_a_name(tmp_path, network):
    saved(tmp_path, state()).rename(tmp_path / "w#1.pth")
    start_from(network, tmp_path / "w#1.pth")
    assert_started(network, state())


def test_a_large_classifier_is_drawn_again_where_the_file_has_none(tmp_path, network):
    weights = state(5)
    start_from(network, saved(tmp_path, weights | {"fc.weight": weights["fc.weight"] * 100}))
    assert network.original_state_dict()["fc.weight"].std() > 10 * weights["fc.weight"].std()
    del weights["fc.weight"], weights["fc.bias"]
    start_from(network, saved(tmp_path, weights))
    layer = network.original_state_dict()["fc.weight"]
    assert layer.abs().max() <= layer.shape[1] ** -0.5


@pytest.mark.parametrize("fc", ["absent", "of other classes", "another"])
def test_a_backbone_keeps_the_classifier_and_says_so(tmp_path, network, caplog, fc):
    weights = state(3)
    if fc != "of other classes":
        del weights["fc.weight"], weights["fc.bias"]
    if fc == "another":
        weights["fc.0.weight"] = torch.ones(2, 12)
    before = {n: x.clone() for n, x in network.original_state_dict().items()}
    start_from(network, saved(tmp_path, weights))
    assert_started(network, before | weights | {n: before[n] for n in ("fc.weight", "fc.bias")})
    assert "not loaded, and drawn anew: fc.weight, fc.bias" in caplog.text
    assert ("not used: fc.0.weight" in caplog.text) == (fc == "another")


def test_absent_counters_of_batch_normalisation_stop_nothing(tmp_path, network):
    old = {n: x for n, x in state().items() if "num_batches" not in n}
    start_from(network, saved(tmp_path, old))
    assert_started(network, state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stem.0.bias": None}, "stem.0.bias is absent, and 0 more"),
        ({"blocks.3.0.weight": torch.ones(1)}, "blocks.3.0.weight does not belong to it"),
        (
            {"stem.0.weight": torch.ones(4, 3, 5, 5)},
            r"has the shape \(4, 3, 5, 5\), not \(4, 3, 3, 3\)",
        ),
        ({"stem.0.bias": torch.ones(4, dtype=torch.int8)}, "holds whole numbers"),
        ({"stem.0.bias": torch.full((4,), torch.nan)}, "not finite: stem.0.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named_as_in_the_file(tmp_path, network, change, message):
    changed = {n: x for n, x in (state() | change).items() if x is not None}
    before = {n: x.clone() for n, x in network.state_dict().items()}
    with pytest.raises(InputError, match=message):
        start_from(network, saved(tmp_path, changed))
    assert all(torch.equal(x, before[n]) for n, x in network.state_dict().items())


def test_of_another_architecture_the_first_names_are_shown(tmp_path, network):
    file = saved(tmp_path, {"layer1.0.weight": torch.ones(2)})
    with pytest.raises(InputError, match=r"begins with layer1.0.weight, the network with stem"):
        start_from(network, file)


def test_half_precision_and_double_become_single(tmp_path, network):
    start_from(network, saved(tmp_path, {n: x.half() for n, x in state().items()}))
    own = network.original_state_dict()
    assert all(own[n].dtype == x.dtype for n, x in state().items())
    assert_started(network, {n: x.half() for n, x in state().items()})


def test_the_form_of_a_file_is_found_whatever_its_name(tmp_path, network):
    save_file({n: x.clone() for n, x in state().items()}, tmp_path / "w.pth")
    start_from(network, tmp_path / "w.pth")
    assert_started(network, state())


def test_a_whole_pickled_model_is_said_and_not_executed(tmp_path, network):
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        file = saved(tmp_path, {"model": Chain(), "epoch": 1}, **options)
        with pytest.raises(
            InputError, match=r"whole pickled model \(foreign.Chain\).*state_dict\(\)"
        ):
            start_from(network, file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Not found</html>", "a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "an HDF5 file"),
        (b"\x1f\x8b" + bytes(20), "gzip: unpack it"),
        (bytes(257) + b"ustar" + bytes(300), "tar file: unpack it"),
        (b"nothing", "is damaged or no file of weights"),
        (pickle.dumps(print), "no state dict"),
        (pickle.dumps(0x1950A86A20F9469CFC6C), "is damaged"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_is_no_weights_is_said_in_a_line(tmp_path, network, name, content, message):
    (tmp_path / name).write_bytes(content)
    if name == "w.safetensors" and message.startswith(("is damaged", "no state")):
        message = "is damaged or no safetensors file"
    with pytest.raises(InputError, match=message) as caught:
        start_from(network, tmp_path / name)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_zip_files_that_torch_save_did_not_write(tmp_path, network):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(InputError, match="a zip file, but not one of torch.save"):
        start_from(network, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", "")
        archive.writestr("w/constants.pkl", "")
    with pytest.raises(InputError, match="a TorchScript program"):
        start_from(network, tmp_path / "w.pth")


def test_a_flipped_bit_is_noticed(tmp_path, network):
    file = saved(tmp_path, state())
    content = bytearray(file.read_bytes())
    content[content.index(state()["blocks.2.0.weight"].numpy().tobytes()) + 5] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged.*CRC"):
        start_from(network, file)


@pytest.mark.parametrize(
    "call", [("builtins", "eval"), ("os", "system"), ("torch.hub", "load"), ("torch", "load")]
)
def test_no_name_in_a_file_is_looked_up(tmp_path, call):
    """What a file would call becomes an inert object, also one that it then changes."""
    module, name = call
    code = f"c{module}\n{name}\n(S'open(\"executed\", \"w\")'\ntR}}S'a'\nI1\nsb.".encode()
    (tmp_path / "w.pkl").write_bytes(code)
    found = read_pickled(tmp_path / "w.pkl")
    assert (found.name, found) == (f"{module}.{name}", {"a": 1})
    assert not pathlib.Path("executed").exists()


def test_sizes_that_a_file_claims_are_not_believed(tmp_path):
    def lies(view):
        torch.save({"a": torch.ones(4)}, file := io.BytesIO())
        with zipfile.ZipFile(file) as archive, zipfile.ZipFile(tmp_path / "w.pth", "w") as other:
            for name in archive.namelist():
                content = archive.read(name)
                other.writestr(name, content.replace(b"K\x04", view) if "pkl" in name else content)
        return tmp_path / "w.pth"

    assert len(read_pickled(lies(b"K\x04"))["a"]) == 4
    with pytest.raises(InputError, match="is damaged"):
        read_pickled(lies(b"K\x7f"))


# Position embeddings


def test_position_embeddings_follow_the_size_of_the_images_as_in_timm(tmp_path, caplog):
    timm = optional("timm", "the tests")
    torch.manual_seed(0)
    there = timm.create_model("test_vit", num_classes=5, img_size=64)
    nn.init.normal_(there.pos_embed)
    network = build_network("timm/test_vit", 5, image_size=(96, 96))
    start_from(network, saved(tmp_path, there.state_dict()), (96, 96))
    here = timm.create_model("test_vit", num_classes=5, img_size=96)
    filtered = timm.models.vision_transformer.checkpoint_filter_fn(there.state_dict(), here)
    here.load_state_dict(filtered)
    assert_started(network, here.state_dict())
    assert "resampled to this size of images: pos_embed" in caplog.text


def test_position_embeddings_of_other_tokens_or_widths_are_refused(tmp_path):
    timm = optional("timm", "the tests")
    weights = timm.create_model("test_vit", num_classes=5, img_size=64).state_dict()
    network = build_network("timm/test_vit", 5, image_size=(64, 32))
    file = saved(tmp_path, weights)
    start_from(network, file, (64, 32))  # 4 x 2 places
    with pytest.raises(InputError, match="pos_embed has the shape"):
        start_from(network, saved(tmp_path, weights | {"pos_embed": torch.ones(1, 18, 64)}))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("timm/test_vit", (104, 104), "104x104 do not suit timm/test_vit: .*size 96 or 128"),
        ("timm/vit_tiny_patch16_224", (100, 100), "100x100 do not suit.*size 96 or 112"),
        ("timm/vit_tiny_patch16_224", (102, 102), "16x16 pixels, and leaves out.*size 96 or 112"),
        ("timm/vit_tiny_patch16_224", (96, 102), "give --data.image_size 96x96 or 96x112"),
        ("timm/xcit_nano_12_p8_224", (20, 20), "20x20 do not suit.*size 16 or 24"),
    ],
)
def test_sizes_that_the_patch_does_not_divide_are_answered_with_those_that_work(
    name, size, message
):
    with pytest.raises(InputError, match=message):
        build_network(name, 5, image_size=size)


# Networks of one's own


def test_weights_of_half_precision_in_a_network_are_refused():
    with pytest.raises(InputError, match=r"weights of torch.float16.*network.float\(\)"):
        build_network("foreign:half", 5, image_size=SIZE)


def test_a_softmax_at_the_end_is_said(caplog):
    build_network("foreign:Softmax", 5, image_size=SIZE)
    assert "leave out the softmax" in caplog.text


def test_wrappers_of_a_network_are_taken_off(network):
    wrapped = nn.DataParallel(torch.compile(nn.DataParallel(Chain(5)), backend="eager"))
    assert from_module(wrapped, SIZE).names == network.names


def test_positions_are_put_on_the_grid_of_an_image_that_is_no_square():
    x = torch.randn(1, 1 + 3 * 3, 4)
    like = torch.zeros(1, 1 + 4 * 1, 4)  # images of 32 x 8 pixels in patches of 8
    found = resampled("pos_embed", x, like, 8, (32, 8))
    maps = x[:, 1:].unflatten(1, (3, 3)).permute(0, 3, 1, 2)
    tall = torch.nn.functional.interpolate(maps, size=(4, 1), mode="bicubic", antialias=True)
    torch.testing.assert_close(found[:, 1:], tall.flatten(2).transpose(1, 2))
    assert torch.equal(found[:, :1], x[:, :1])


def test_of_the_sizes_near_those_that_work_are_named():
    def only_64(size, pretrained):
        if size != (64, 64):
            raise ValueError("no")
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

    with pytest.raises(InputError, match="do not suit a_patch32: give --data.image_size 64$"):
        _cut(only_64, "a_patch32", (40, 40), False)
