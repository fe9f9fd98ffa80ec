"""Networks of a run in the forms of other libraries: what is written, loads, and says of itself."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from commands_of import codistill
from photo_fakes import encoded, picture
from PIL import Image
from runs_of import train
from safetensors.torch import load_file

import exports
from codistill.names import NETWORKS
from codistill.networks.build import build_network
from codistill.runs.classifier import open_classifier
from codistill.runs.exporting import card
from codistill.runs.exporting.standalone import load_standalone, standalone
from codistill.runs.exporting.verify import interval


@pytest.fixture(autouse=True)
def _no_checks_of_shapes() -> Iterator[None]:
    """torch.export traces with sizes that are symbols, which jaxtyping's tests cannot compare."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def ffl(digits_runs: list[Path]) -> Path:
    return digits_runs[0]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photo.jpg").write_bytes(encoded(picture(3)))
    return tmp_path / "photo.jpg"


def exported(run: Path, out: Path, *options: str) -> str:
    done = codistill("export", run, "--out", out, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in out.parent.glob(".*")) == []
    return done.stdout


def names_this_machine(folder: Path) -> list[str]:
    """The files of an export that name a file of the library on this machine."""
    contents = {file.name: file.read_bytes() for file in folder.iterdir()}
    for file in filter(zipfile.is_zipfile, folder.iterdir()):
        with zipfile.ZipFile(file) as parts:
            contents[file.name] = b"".join(map(parts.read, parts.namelist()))
    own = str(Path(card.__file__).parents[2]).encode()
    return [name for name, content in contents.items() if own in content]


def said_by(model: Path, photo: Path, *options: str) -> dict[str, float]:
    done = codistill("predict", model, photo, "--format", "json", "--top", "10", *options)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    return {c["class"]: c["probability"] for c in answer["classes"]}


@pytest.mark.parametrize(
    ("form", "options", "within"),
    [
        ("safetensors", (), 1e-6),
        ("safetensors", ("--precision", "bf16"), 0.05),
        ("safetensors", ("--of", "peer1"), 1e-6),
        ("pt2", (), 1e-5),
        pytest.param("pt2", ("--precision", "bf16", "--of", "fused"), 0.05, marks=pytest.mark.slow),
    ],
)
def test_an_export_says_what_the_run_says(
    form: str, options: tuple[str, ...], within: float, ffl: Path, photo: Path, tmp_path: Path
) -> None:
    said = exported(ffl, tmp_path / "out", "--format", form, *options)
    assert "compared on 899 test images: largest difference of a logit" in said
    of = options[options.index("--of") :] if "--of" in options else ()
    assert not names_this_machine(tmp_path / "out")
    ours = said_by(tmp_path / "out", photo, "--trust_code", "true")
    assert ours == pytest.approx(said_by(ffl, photo, *of), abs=within)
    assert ours != said_by(ffl, photo, "--of", "ensemble")
    if form == "safetensors":
        dtypes = {x.dtype for x in load_file(next(tmp_path.glob("out/*.safetensors"))).values()}
        assert dtypes - {torch.int64} == {torch.bfloat16 if "bf16" in options else torch.float32}


def test_what_an_export_says_of_itself(ffl: Path, tmp_path: Path) -> None:
    said = exported(ffl, tmp_path / "out", "--format", "safetensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    about = open_classifier(ffl).about
    assert config["architecture"] == "resnet8"
    assert config["label_names"] == [str(digit) for digit in range(10)]
    assert config["preprocessing"]["image_size"] == [8, 8]
    assert config["preprocessing"]["mean"] == pytest.approx([x / 255 for x in about["mean"]])
    result = json.loads((ffl / "result.json").read_text())
    top1 = result["last"][about["classifier"]]["test/top1"]
    assert config["metrics"]["test/top1"] == top1
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: pytorch\n")
    for text in (
        "from model import load",
        "company: 2 peers (resnet8, resnet8, the first 2 stages shared)",
        "seed 0",
        f"| **{about['classifier']}** (this one) | {top1:.2f} |",
        "Feature Fusion for Online Mutual Knowledge Distillation",
        "arXiv:1904.09058.",
        said.strip().splitlines()[-1].partition(": ")[2],
    ):
        assert text in card, text


def test_the_code_of_a_card_classifies_a_file(
    ffl: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(ffl, tmp_path / "out", "--format", "safetensors")
    exif = Image.Exif()
    exif[274] = 6  # shown turned back
    turned = Image.open(photo).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "cat.jpg", exif=exif, quality=95)
    exports.main(["write", f"{tmp_path}/ours.npz", str(ffl), "student", f"{tmp_path}/cat.jpg"])
    ours = np.load(tmp_path / "ours.npz")
    given = (tmp_path / "out", ours["pixels"], ours["images"])
    for theirs in exports.by_its_card(*given):
        np.testing.assert_allclose(theirs, ours["logits"], rtol=0, atol=1e-5)
    capsys.readouterr()
    exports.main(["read", f"{tmp_path}/ours.npz", f"{tmp_path}/out"])
    said = capsys.readouterr().out
    assert said.startswith("largest logit ")
    assert re.search(
        r"out, model.safetensors 0.3\d MB; pixels .*, 1 of 1; files .*, 1 of 1\n", said
    )
    sys.modules.pop("model")


def test_a_card_shows_names_and_intervals_as_they_are() -> None:
    assert card._plain("a\n*b* $c$ &amp; [d]") == "a \\*b\\* \\$c\\$ \\&amp; \\[d\\]"
    assert f"{interval(0, 10)[0]:.2f}" == "0.00"
    assert interval(100, 10)[1] == 100


@pytest.mark.slow
def test_a_network_of_ours_loads_without_codistill(ffl: Path, photo: Path, tmp_path: Path) -> None:
    exported(ffl, tmp_path / "out", "--format", "safetensors")
    torch.save(images := open_classifier(ffl).image(photo), tmp_path / "images.pt")
    code = """if True:
        import sys
        sys.modules["codistill"] = None
        import torch
        from model import load
        network = load()
        torch.jit.script(network)
        print(network(torch.load("../images.pt"))[0].tolist())
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx(
        open_classifier(ffl)(images)[0].tolist(), abs=1e-5
    )


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg16", "densenet_40_12", "mobilenet_v2"])
def test_the_module_of_a_family_has_its_weights(name: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = build_network(name, 3).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "model.py").write_text(standalone(name, 3))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_standalone(tmp_path / "model.py")(images), network(images))


@pytest.mark.parametrize("name", {family: name for name, (family, _) in NETWORKS.items()}.values())
def test_the_module_of_a_family_needs_nothing_of_ours(name: str) -> None:
    source = standalone(name, 3)
    assert "import codistill" not in source
    assert "from codistill" not in source
    assert "InputError" not in source
    assert "initialise" not in source


@pytest.mark.slow
def test_onnx_takes_any_number_of_images(ffl: Path, photo: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    exported(ffl, tmp_path / "out", "--format", "onnx")
    student, file = open_classifier(ffl), tmp_path / "out" / "model.onnx"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert not names_this_machine(tmp_path / "out")
    for n in (1, 5):
        images = torch.randn(n, 3, 8, 8)
        (logits,) = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), student(images), rtol=1e-4, atol=1e-4)
    assert said_by(tmp_path / "out", photo) == pytest.approx(said_by(ffl, photo), abs=1e-4)


@pytest.mark.slow
def test_onnx_in_8_bits_is_near(ffl: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    said = exported(ffl, tmp_path / "out", "--format", "onnx", "--precision", "int8")
    before, after = (float(x.split()[0]) for x in said.split("top-1 ")[1].split("before, "))
    assert abs(before - after) < 5
    assert "int8, on 899 test images" in (tmp_path / "out" / "README.md").read_text()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.onnx",
    ]


@pytest.fixture(scope="module")
def of_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a network of timm beside one of torchvision, for half a dozen steps."""
    folder = tmp_path_factory.mktemp("libraries") / "run"
    networks = {"network": "timm/test_resnet,torchvision/shufflenet_v2_x0_5", "shared": 0}
    return train(folder, method={"name": "dml"}, epochs=1, limit_steps=2, **networks)


@pytest.mark.slow
def test_timm_loads_its_folder_alone(of_libraries: Path, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    exported(of_libraries, tmp_path / "out", "--format", "timm", "--of", "peer0")
    network = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(network(images), open_classifier(of_libraries, "peer0")(images))
    settings = timm.data.resolve_data_config({}, model=network)
    assert (tuple(settings["input_size"]), settings["crop_pct"]) == ((3, 8, 8), 1.0)


@pytest.mark.slow
def test_torchvision_loads_its_weights(of_libraries: Path, tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    exported(of_libraries, tmp_path / "out", "--format", "torchvision", "--of", "peer1")
    card = (tmp_path / "out" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    assert "torchvision.models.shufflenet_v2_x0_5(num_classes=10)" in code
    names: dict[str, torch.nn.Module] = {}
    exec(code.replace('"model.', f'"{tmp_path / "out"}/model.'), names)
    assert type(names["network"]) is torchvision.models.ShuffleNetV2
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(
        names["network"](images), open_classifier(of_libraries, "peer1")(images)
    )


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ("--format timm", "resnet8 is no network of timm: give --format safetensors, onnx or pt2"),
        ("--format safetensors --of fused", "is more than one network: export it by --format onnx"),
        ("--format pt2 --precision int8", "int8 is for --format onnx"),
        ("--format onnx --precision bf16", "onnxruntime computes no bf16"),
        ("--format pt2 --of fusd", "has no classifier 'fusd': did you mean 'fused'?"),
        ("--format pt2 --push name", "'name' is no repository: give OWNER/NAME"),
        ("--format pt2 --device cuda", "is made and compared on the CPU"),
        ("--format safetensors --out none/x", "there is no folder none"),
        ("--format safetensors --out .", ". is there already: remove it"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    options: str, answer: str, ffl: Path, tmp_path: Path
) -> None:
    done = codistill("export", ffl, *options.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert answer in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert not list(ffl.glob("*export*"))


def test_a_full_disk_or_a_wrong_export_leaves_nothing(
    ffl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    def other(*_: object) -> str:
        (tmp_path / "out").mkdir()
        return ""

    place = "codistill.runs.exporting.export"
    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.card_of", full)
        done = codistill("export", ffl, "--format", "safetensors", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "No space left on device: free some space" in done.stderr
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.tempfile.mkdtemp", refused)
        done = codistill("export", ffl, "--format", "safetensors", "--out", tmp_path / "out")
    assert f"{tmp_path / 'out'} cannot be made: Permission denied" in done.stderr
    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.card_of", other)  # another export is faster
        done = codistill("export", ffl, "--format", "safetensors", "--out", tmp_path / "out")
    assert "out is there already" in done.stderr
    (tmp_path / "out").rmdir()
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patch:
        wrong = build_network("resnet8", 10).eval()
        patch.setattr(f"{place}.read_model", lambda *_: wrong)
        done = codistill("export", ffl, "--format", "safetensors", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "does not compute what the network does" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_run_code_is_not_opened_unasked(ffl: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    about = open_classifier(ffl).about | {"format": "pt2"}
    (folder / "config.json").write_text(json.dumps({"codistill": about}))
    done = codistill("predict", folder, folder / "config.json")
    assert "model.pt2 is a file that may run code" in done.stderr
    (folder / "config.json").write_text("{}")
    assert "is not that of an export" in codistill("predict", folder, folder / "config.json").stderr


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as an upload of small files asks; the token "good" may write."""

    sent: dict[str, str] = {}

    def do_GET(self) -> None:
        self._answer({"type": "user", "name": "me", "auth": {}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            plain = {"uploadMode": "regular", "shouldIgnore": False}
            self._answer({"files": [{"path": name} | plain for name in names]})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            files = [x["value"] for x in lines if x["key"] == "file"]
            self.sent.update({file["path"]: file["content"] for file in files})
            url = "https://huggingface.co/me/net/commit/1"
            self._answer({"commitUrl": url, "commitOid": "1", "hookOutput": "", "success": True})
        else:
            self._answer({"url": "https://huggingface.co/me/net", "name": "me/net", "id": "me/net"})

    def _answer(self, content: dict) -> None:
        good = self.headers.get("Authorization") == "Bearer good"
        body = json.dumps(content if good else {"error": "Invalid token"}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What a stand-in for the Hub was sent: name -> content in base64."""
    pytest.importorskip("huggingface_hub")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    _Hub.sent.clear()
    yield _Hub.sent
    server.shutdown()
    server.server_close()


def test_an_export_is_sent(
    ffl: Path, tmp_path: Path, hub: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "good")
    done = codistill(
        "export", ffl, "--format", "safetensors", "--out", tmp_path / "out", "--push", "me/net"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("sent to http")
    assert sorted(hub) == ["README.md", "config.json", "model.py", "model.safetensors"]


def test_a_wrong_token_writes_nothing(
    ffl: Path, tmp_path: Path, hub: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "bad")
    done = codistill(
        "export", ffl, "--format", "safetensors", "--out", tmp_path / "out", "--push", "me/net"
    )
    assert done.returncode == 2
    assert "the Hub takes nothing for me/net" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not hub
    assert list(tmp_path.iterdir()) == []
