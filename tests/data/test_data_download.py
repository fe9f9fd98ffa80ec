"""Downloads, from a server on this machine."""

import dataclasses
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from data_fakes import make_fake, write_archive

from codistill.data import load_dataset
from codistill.data.readers import cifar
from codistill.data.readers.download import download
from codistill.errors import InputError

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server:
    """Serves `content`; notes each request's Range and the bytes that it sent."""

    def __init__(self):
        self.content = CONTENT
        self.ranges = True  # whether it knows Range
        self.cuts = []  # after how many bytes the next connections are cut
        self.status = None  # an error to answer with
        self.asked = []
        self.sent = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data.bin"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def answer(self, request):
        self.asked.append(request.headers.get("Range"))
        if self.status:
            request.send_error(self.status)
            return
        found = re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(found[1]) if found and self.ranges else 0
        if start and start >= len(self.content):
            request.send_error(416)
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        if start:
            end, whole = len(self.content) - 1, len(self.content)
            request.send_header("Content-Range", f"bytes {start}-{end}/{whole}")
        request.end_headers()
        body = body[: self.cuts.pop(0)] if self.cuts else body
        request.wfile.write(body)
        self.sent += len(body)

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CODISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "downloads" / "data.bin"


def part_of(target, content=CONTENT[:100_000]):
    target.parent.mkdir()
    part = target.with_name("data.bin.part")
    part.write_bytes(content)
    return part


def test_a_download_is_whole_and_leaves_no_part(server, target):
    download(server.url, target, MD5)
    assert target.read_bytes() == CONTENT
    assert not target.with_name("data.bin.part").exists()


def test_what_is_there_is_not_asked_for(server, target):
    download(server.url, target, MD5)
    download(server.url, target, MD5)
    assert server.asked == [None]


def test_progress_is_shown_on_stderr_only(server, target, capsys):
    download(server.url, target, MD5)
    shown = capsys.readouterr()
    assert "data.bin" in shown.err
    assert "1.0/1.0 MB" in shown.err
    assert shown.out == ""


def test_a_cut_connection_is_resumed_where_it_was_cut(server, target):
    server.cuts = [300_000, 200_000]
    download(server.url, target, MD5)
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]
    assert server.sent == len(CONTENT)
    assert target.read_bytes() == CONTENT


def test_a_part_of_an_earlier_run_is_resumed(server, target):
    part_of(target)
    download(server.url, target, MD5)
    assert server.asked == ["bytes=100000-"]
    assert server.sent == len(CONTENT) - 100_000
    assert target.read_bytes() == CONTENT


def test_a_connection_that_is_always_cut_keeps_its_part_and_says_how_to_go_on(server, target):
    server.cuts = [1000] * 5
    with pytest.raises(InputError, match="cut off 5 times.*run the same command again to resume"):
        download(server.url, target, MD5)
    assert target.with_name("data.bin.part").read_bytes() == CONTENT[:5000]
    assert not target.exists()


def test_a_server_without_ranges_sends_it_all_again(server, target):
    server.ranges = False
    part_of(target)
    download(server.url, target, MD5)
    assert server.asked == ["bytes=100000-"]
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_taken(server, target):
    part_of(target, CONTENT)
    download(server.url, target, MD5)
    assert server.sent == 0
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"x" * 100_000, CONTENT + b"x"], ids=["other", "too long"])
def test_a_part_that_does_not_fit_is_dropped_and_all_is_fetched(server, target, part):
    part_of(target, part)
    download(server.url, target, MD5)
    assert server.asked[-1] is None
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_deletes_the_file_and_says_so_in_one_line(server, target):
    server.content = b"something else"
    with pytest.raises(InputError, match="MD5 checksum .* it was deleted") as caught:
        download(server.url, target, MD5)
    assert "\n" not in str(caught.value)
    assert [file.name for file in target.parent.iterdir()] == ["data.bin.lock"]
    assert len(server.asked) == 1


def test_an_answer_with_an_error_is_one_line_that_names_the_way_out(server, target):
    server.status = 503
    with pytest.raises(InputError, match=r"HTTP status 503\): give .* by --data.root"):
        download(server.url, target, MD5)


def test_no_network_is_one_line_that_names_the_way_out(server, target):
    url = server.url.replace(str(server.http.server_port), "9")  # nobody listens there
    with pytest.raises(InputError, match="cannot be fetched .* by --data.root") as caught:
        download(url, target, MD5)
    assert "\n" not in str(caught.value)


def test_a_silent_server_is_given_up(target, monkeypatch):
    import socket

    monkeypatch.setattr("codistill.data.readers.download.TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.bin"
        with pytest.raises(InputError, match="timed out"):
            download(url, target, MD5)


def test_a_folder_that_cannot_be_written_is_one_line(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written .* CODISTILL_CACHE"):
        download(server.url, tmp_path / "file" / "data.bin", MD5)


def test_two_at_once_fetch_it_once(server, target):
    threads = [threading.Thread(target=download, args=(server.url, target, MD5)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [None]
    assert target.read_bytes() == CONTENT


def test_a_data_set_without_root_is_downloaded_into_the_cache(server, tmp_path, cache, monkeypatch):
    fake = make_fake()
    server.content = write_archive(tmp_path, fake).read_bytes()
    local = type("Local", (cifar.Cifar,), {"url": server.url})
    facts = dataclasses.asdict(fake.cifar) | {"md5": hashlib.md5(server.content).hexdigest()}
    monkeypatch.setitem(cifar.CIFARS, "cifar10", local(**facts))
    assert load_dataset("cifar10").train.labels.tolist() == fake.train_labels
    assert (cache / "cifar-10-python.tar.gz").read_bytes() == server.content


@pytest.mark.parametrize(
    ("name", "md5"),
    [
        ("cifar10", "c58f30108f718f92721af3b95e74349a"),
        ("cifar100", "eb9058c3a382ffc7106e4002c42a8d85"),
    ],
)
def test_the_addresses_and_checksums_are_the_published_ones(name, md5):
    file = name.replace("cifar", "cifar-") + "-python.tar.gz"
    assert cifar.CIFARS[name].url == f"https://www.cs.toronto.edu/~kriz/{file}"
    assert cifar.CIFARS[name].md5 == md5
