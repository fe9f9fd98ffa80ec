"""The page of `codistill serve`: its answers, and what it refuses."""

import http.client
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from photo_fakes import encoded, picture

from codistill.command import serve
from codistill.errors import InputError
from codistill.reporting.live import answers
from codistill.reporting.live.answers import Answers
from codistill.reporting.live.server import LIMIT, Server
from codistill.runs.classifier import open_classifier
from codistill.runs.predict import predict

IMAGE = encoded(picture(0), "PNG")


@pytest.fixture(scope="module")
def ffl(digits_runs: list[Path]) -> Path:
    return digits_runs[0]


@pytest.fixture(scope="module")
def port(ffl: Path) -> Iterator[int]:
    """The port of a page on FFL with two peers."""
    with Server(Answers(ffl, "cpu")) as page:
        yield from serving(page)


def serving(page: Server) -> Iterator[int]:
    thread = threading.Thread(target=page.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield page.server_port
    page.shutdown()
    thread.join()


@pytest.fixture
def failing() -> Iterator[Callable[[BaseException], int]]:
    """The port of a page whose answer raises what it is given."""
    raised: list[BaseException] = []

    def answer(image: bytes) -> dict[str, Any]:
        raise raised[-1]

    with Server(answer) as page:
        ports = serving(page)
        number = next(ports)
        yield lambda error: raised.append(error) or number
        next(ports, None)


def ask(
    port: int, content: bytes = b"", path: str = "/answer", method: str = "POST", **headers: str
) -> tuple[int, Any]:
    """The status and the answer to a request, which is JSON in one line, or the page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, content, names)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    if answer.getheader("Content-Type") != "application/json":
        return answer.status, text
    assert "\n" not in text
    return answer.status, json.loads(text)


def test_an_answer_is_that_of_predict(ffl: Path, port: int, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    status, found = ask(port, IMAGE)
    assert (status, found["note"]) == (200, "")
    of = {one["name"]: one for one in found["classifiers"]}
    assert {"peer0", "peer1", "ensemble", "fused"} <= set(of)
    for name, one in of.items():
        (expected,) = predict(open_classifier(ffl, name, "cpu"), [str(tmp_path / "a.png")])
        assert [c["class"] for c in one["classes"]] == [name for name, _ in expected.classes]
        shares = [c["probability"] for c in one["classes"]]
        assert shares == pytest.approx([share for _, share in expected.classes], abs=1e-5)
        assert one["heat"].startswith("data:image/webp;base64,")
    ships = open_classifier(ffl).about["classifier"]
    assert [name for name, one in of.items() if "this one ships" in one["about"]] == [ships]


def test_a_students_file_has_one_answer(ffl: Path) -> None:
    found = Answers(ffl / "student.safetensors", "cpu")(IMAGE)
    (one,) = found["classifiers"]
    assert (one["name"], one["heat"], one["about"], found["note"]) == ("student", "", "", "")


@pytest.mark.parametrize(
    ("lost", "why"),
    [("result.json", "a run that is not finished"), ("weights.safetensors", "has no last weights")],
)
def test_a_run_that_lacks_something_has_the_answer_of_its_student(
    lost: str, why: str, ffl: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(ffl, tmp_path / "run", ignore=shutil.ignore_patterns(lost, "check*"))
    found = Answers(run, "cpu")(IMAGE)
    assert [one["name"] for one in found["classifiers"]] == ["student"]
    assert found["note"].startswith("only the student answers: ")
    assert why in found["note"]


def test_without_heat_maps_there_are_answers(ffl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise InputError("the network has no map")

    monkeypatch.setattr(answers, "heat_maps", none)
    found = Answers(ffl, "cpu")(IMAGE)
    assert found["note"] == "no heat maps: the network has no map"
    assert len(found["classifiers"]) > 3
    assert not any(one["heat"] for one in found["classifiers"])


def test_bad_requests_are_refused_in_one_line(port: int) -> None:
    status, found = ask(port, b"no image")
    assert (status, found["error"]) == (400, "the image: no image, or of a format that is not read")
    assert ask(port, IMAGE[:300])[0] == 400
    assert ask(port, Content_Length=str(LIMIT + 1))[0] == 413
    assert ask(port, Content_Length="x")[0] == 411
    assert ask(port, Content_Length="-1")[0] == 411
    assert ask(port, path="/../etc/passwd")[0] == 404
    assert ask(port, method="GET", path="/x")[0] == 404


def test_an_image_that_decodes_to_too_much_is_refused(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 500)
    status, found = ask(port, IMAGE)
    assert (status, found["error"]) == (400, "the image: too large: more than 1,000 pixels")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_sites_are_refused(port: int, method: str) -> None:
    path = "/" if method == "GET" else "/answer"
    content = IMAGE if method == "POST" else b""
    for kind in ("127.0.0.1", "localhost"):
        ours = {"Host": f"{kind}:{port}", "Origin": f"http://{kind}:{port}"}
        assert ask(port, content, method=method, path=path, **ours)[0] == 200
    for foreign in (
        {"Host": f"evil.example:{port}"},
        {"Origin": "http://evil.example"},
        {"Origin": f"https://127.0.0.1:{port}"},
        {"Origin": "null"},
    ):
        assert ask(port, method=method, path=path, **foreign)[0] == 403


def test_an_error_of_ours_is_one_line_and_the_page_goes_on(
    failing: Callable[[BaseException], int], capfd: pytest.CaptureFixture[str]
) -> None:
    status, found = ask(failing(RuntimeError("out of\nluck")), b"x")
    assert status == 500
    assert found["error"] == "the command failed, its terminal says where (out of)"
    assert "RuntimeError: out of" in capfd.readouterr().err
    assert ask(failing(InputError("two\nlines")), b"x") == (400, {"error": "two lines"})


def test_a_browser_that_goes_away_is_not_reported(capfd: pytest.CaptureFixture[str]) -> None:
    page = Server(lambda image: {})
    try:
        raise ConnectionResetError
    except ConnectionResetError:
        page.handle_error(None, None)
    assert capfd.readouterr().err == ""
    try:
        raise ValueError("of ours")
    except ValueError:
        page.handle_error(None, None)
    page.server_close()
    assert "of ours" in capfd.readouterr().err


def test_the_page_is_for_this_machine_and_asks_no_other(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object) -> str:
        raise AssertionError("a name server was asked")

    monkeypatch.setattr(socket, "getfqdn", slow)
    with Server(lambda image: {}) as page:
        assert page.socket.getsockname()[0] == "127.0.0.1"
    status, text = ask(port, method="GET", path="/")
    assert (status, "http" in text, str(LIMIT) in text) == (200, False, True)
    assert 'rel="icon" href="data:,"' in text  # a browser would ask for one


def test_it_prints_its_address_and_ctrl_c_ends_it(
    ffl: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: int
) -> None:
    def pressed(page: Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", pressed)
    model = str(ffl / "student.safetensors")
    assert serve.main([model, "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("http://127.0.0.1:")
    assert (said.out.count("\n"), said.err) == (2, "")
    with pytest.raises(InputError, match=f"--port {port} cannot be used: Address already in use"):
        serve.main([model, "--device", "cpu", "--port", str(port)])
    with pytest.raises(InputError, match="'65536' is no port, 0 to 65535"):
        serve.main([model, "--port", "65536"])


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_browser_shows_every_answer(port: int, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    (tmp_path / "a.png").write_bytes(IMAGE)
    (tmp_path / "b.png").write_bytes(b"no image")
    said: list[str] = []
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        tab = browser.new_page(viewport={"width": 390, "height": 800})
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"http://127.0.0.1:{port}/")
        tab.set_input_files("#file", tmp_path / "a.png")
        tab.wait_for_selector("section")
        names = tab.locator("h2").all_inner_texts()
        assert {"peer0", "peer1", "ensemble", "fused"} <= set(names)
        assert tab.locator(".bar").count() == 5 * len(names)
        tab.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert said == []
        tab.set_input_files("#file", tmp_path / "b.png")
        tab.locator("#note", has_text="no image").wait_for()
        assert tab.locator("section").count() == 0
        browser.close()
    here = ("data:", "blob:", f"http://127.0.0.1:{port}/")
    assert [url for url in asked if not url.startswith(here)] == []
