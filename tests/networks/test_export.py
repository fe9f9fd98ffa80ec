"""The student that is taken away."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from codistill.data import load_dataset
from codistill.errors import InputError
from codistill.networks.build import build_network
from codistill.networks.student import save_student
from codistill.runs.run import Run
from codistill.runs.student import load_student
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig
from codistill.tensor_files import read_weights, write_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = Config(
        method={"name": "ffl", "ramp_up": 1},
        network="resnet8",
        shared=2,
        data=DataConfig(name="digits"),
        epochs=2,
        threads=1,
        out=str(tmp_path_factory.mktemp("runs") / "run"),
    )
    run = Run.create(config)
    list(run.train())
    return run


@pytest.mark.long
def test_the_student_of_a_run_is_as_good_as_its_peer_was(run: Run) -> None:
    student = load_student(run.path / "student.safetensors")
    about = student.about
    test = load_dataset("digits").test
    mean, std = torch.tensor(about["mean"]), torch.tensor(about["std"])
    logits = student(((test.images - mean) / std).permute(0, 3, 1, 2))
    top1 = 100 * (logits.argmax(dim=1) == test.labels).double().mean().item()
    expected = run.history()[-1][f"test/top1/peer{about['peer']}"]
    assert top1 == pytest.approx(expected, abs=1e-9)


def test_the_student_has_nothing_of_the_method(run: Run) -> None:
    names = load_file(run.path / "student.safetensors").keys()
    assert set(names) == set(build_network("resnet8", 10).state_dict())


def test_the_student_says_what_it_is(run: Run) -> None:
    about = load_student(run.path / "student.safetensors").about
    assert about["network"] == "resnet8"
    assert about["classes"] == [str(digit) for digit in range(10)]
    assert about["image_size"] == [8, 8]
    assert (about["method"], about["epoch"]) == ("ffl", 2)


def test_a_student_survives_its_file(tmp_path: Path) -> None:
    network = build_network("resnet8", 3).to(memory_format=torch.channels_last).eval()
    about = {"network": "resnet8", "classes": ["a", "b", "c"]}
    save_student(tmp_path / "s.safetensors", network, about)
    again = load_student(tmp_path / "s.safetensors")
    torch.testing.assert_close(again.network.state_dict(), network.state_dict(), rtol=0, atol=0)
    assert again.about == about
    assert again.classes == ("a", "b", "c")
    assert not again.network.training


def test_a_student_classifies_an_image_file(run: Run, tmp_path: Path) -> None:
    student = load_student(run.path / "student.safetensors")
    pixels = load_dataset("digits").test.images[3].numpy()
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    image = student.image(tmp_path / "digit.png")
    mean, std = torch.tensor(student.about["mean"]), torch.tensor(student.about["std"])
    normalised = ((torch.from_numpy(pixels) - mean) / std).permute(2, 0, 1)[None]
    torch.testing.assert_close(image, normalised)
    logits = student(tmp_path / "digit.png")
    assert logits.shape == (1, 10)
    torch.testing.assert_close(logits, student.network(image))
    assert torch.equal(student(str(tmp_path / "digit.png")), student(image))
    shares = student.probabilities(tmp_path / "digit.png")
    assert list(shares)[0] == student.classes[int(logits.argmax())]
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["3"] == pytest.approx(logits.softmax(dim=1)[0, 3].item())


def test_a_student_that_no_run_wrote_takes_tensors_only(tmp_path: Path) -> None:
    about = {"network": "resnet8", "classes": ["a", "b"]}
    save_student(tmp_path / "s.safetensors", build_network("resnet8", 2), about)
    student = load_student(tmp_path / "s.safetensors")
    assert student(torch.zeros(5, 3, 32, 32)).shape == (5, 2)
    with pytest.raises(InputError, match="`about` lacks .*'mean'"):
        student("cat.jpg")


def test_a_student_does_not_run_code_unasked(tmp_path: Path) -> None:
    about = {"network": "os:getcwd", "classes": ["a"]}
    save_student(tmp_path / "s.safetensors", build_network("resnet8", 1), about)
    with pytest.raises(InputError, match="if you trust the file"):
        load_student(tmp_path / "s.safetensors")
    with pytest.raises(InputError, match="cannot be called"):
        load_student(tmp_path / "s.safetensors", trust_code=True)


def test_what_is_no_student_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    with pytest.raises(InputError, match="there is no file"):
        load_student(path)
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match="is damaged or no safetensors file"):
        load_student(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="does not say which network"):
        load_student(path)
    about = {"network": "resnet14", "classes": ["a", "b"]}
    save_student(path, build_network("resnet8", 2), about)
    with pytest.raises(InputError, match="does not hold the weights of this Network"):
        load_student(path)


HEADERS = {
    "network": [3, None, "", "resnet9", "timm/no_such", "torchvision/a\0b", "a" * 10_000, "timm/"],
    "classes": [3, "ab", [], [1, 2], None, {"a": 1}, ["a", "b", "c"], ["a"]],
    "image_size": [3, [32], [32, 32.5], [0, 32], [-1, 32], [10**9, 10**9], "32", None, [2**63, 1]],
    "mean": [3, [1, 2], ["a", "b", "c"]],
    "std": [[0, 1, 1], [1.0, 1.0, float("nan")]],
    "crop": [0, "1", [1], 2],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in HEADERS.items() for value in values],
    ids=str,
)
def test_a_header_that_lies_is_one_clear_line(name: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    about = {"network": "resnet8", "classes": ["a", "b"], "image_size": [32, 32]}
    save_student(path, build_network("resnet8", 2), about)
    load_student(path)
    write_weights(path, read_weights(path)[0], about | {name: value})
    with pytest.raises(InputError, match="s.safetensors") as caught:
        load_student(path)
    assert "\n" not in str(caught.value)


def test_tensors_of_another_kind_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_student(path, build_network("resnet8", 2), {"network": "resnet8", "classes": ["a", "b"]})
    tensors, about = read_weights(path)
    name = next(name for name in tensors if name.endswith("weight"))
    write_weights(path, tensors | {name: tensors[name].view(torch.int32)}, about)
    with pytest.raises(InputError, match="does not hold the weights of this Network"):
        load_student(path)
