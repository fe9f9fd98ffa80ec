"""Downloads, from a server on this machine."""

import dataclasses
import hashlib
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

pytestmark = pytest.mark.usefixtures("cache")


class Server:
    """Serves `content`; counts the requests."""

    def __init__(self):
        self.content = CONTENT
        self.cut = None  # after how many bytes connections are cut
        self.status = None  # an error to answer with
        self.asked = 0
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
        self.asked += 1
        if self.status:
            request.send_error(self.status)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(self.content)))
        request.end_headers()
        request.wfile.write(self.content[: self.cut])

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "downloads" / "data.bin"


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_download_is_whole_and_leaves_no_part(server, target):
    download(server.url, target, MD5)
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["data.bin", "data.bin.lock"]


def test_what_is_there_is_not_asked_for(server, target):
    download(server.url, target, MD5)
    download(server.url, target, MD5)
    assert server.asked == 1


def test_progress_is_shown_on_stderr_only(server, target, capsys):
    download(server.url, target, MD5)
    shown = capsys.readouterr()
    assert "100%" in shown.err
    assert shown.out == ""


def test_the_address_and_the_place_are_reported(server, target, caplog):
    download(server.url, target, MD5)
    assert caplog.messages == [f"codistill: note: downloading {server.url} to {target}"]


def test_a_download_that_is_cut_off_is_deleted_and_the_next_call_fetches_it(server, target):
    server.cut = 1000
    with pytest.raises(InputError, match="damaged or cut off, and was deleted") as caught:
        download(server.url, target, MD5)
    assert "\n" not in str(caught.value)
    assert names(target.parent) == ["data.bin.lock"]
    server.cut = None
    download(server.url, target, MD5)
    assert target.read_bytes() == CONTENT


def test_what_a_killed_download_left_is_removed(server, target):
    target.parent.mkdir()
    left = [".data.bin.abc.tmp", ".data.bin.abc.tmp.0123.partial"]
    for name in left:
        (target.parent / name).write_bytes(CONTENT[:1000])
    download(server.url, target, MD5)
    assert names(target.parent) == ["data.bin", "data.bin.lock"]


def test_a_wrong_checksum_deletes_the_file_and_says_so_in_one_line(server, target):
    server.content = b"something else"
    with pytest.raises(InputError, match=f"was deleted: .* MD5 .* instead of {MD5}") as caught:
        download(server.url, target, MD5)
    assert "\n" not in str(caught.value)
    assert names(target.parent) == ["data.bin.lock"]
    assert server.asked == 1


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
    assert socket.getdefaulttimeout() is None


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
    assert server.asked == 1
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
