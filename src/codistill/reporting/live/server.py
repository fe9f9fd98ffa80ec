"""The page and its answers over HTTP, for this machine alone."""

import json
import socketserver
import sys
import threading
import traceback
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from codistill.errors import InputError, reason

LIMIT = 32 * 2**20
"""Bytes of an image that the page takes at most."""
_PAGE = Path(__file__).with_name("page.html")
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; frame-ancestors 'none'"
)


class Server(ThreadingHTTPServer):
    """The page and its answers, on 127.0.0.1 only.

    Args:
        answer: what the page shows of an image's bytes, ready for JSON; called for one image at a
            time. Raises InputError where the image is broken.
        port: port; 0: a free one.

    Raises:
        OSError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[bytes], dict[str, Any]], port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer = answer
        self.one_at_a_time = threading.Lock()
        self.page = _PAGE.read_text(encoding="utf-8").replace("$LIMIT", str(LIMIT)).encode()
        self.hosts = (f"127.0.0.1:{self.server_port}", f"localhost:{self.server_port}")

    def server_bind(self) -> None:
        """Binds, and asks no name server for the name of this machine, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.socket.getsockname()[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a browser that has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        return f"http://{self.hosts[0]}/"


class _Handler(BaseHTTPRequestHandler):
    """GET / is the page. POST /answer takes the bytes of an image and returns JSON."""

    server: Server
    timeout = 30  # seconds that a browser may keep silent

    def do_GET(self) -> None:
        if not self._refused("/"):
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)

    def do_POST(self) -> None:
        if self._refused("/answer"):
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            self._error(HTTPStatus.LENGTH_REQUIRED, "the request does not say its length")
        elif len(length) > 18 or int(length) > LIMIT:
            self._error(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the image is too large: the page takes {LIMIT // 2**20} MiB",
            )
        else:
            self._answer(self.rfile.read(int(length)))

    def _refused(self, path: str) -> bool:
        """Refuses another path, and other sites: by a name of theirs for this machine, by a page.

        Their names could be made to mean this machine, and their pages could send images here.
        """
        hosts = self.server.hosts
        origins = {None, *(f"http://{host}" for host in hosts)}
        if self.headers.get("Host") not in hosts or self.headers.get("Origin") not in origins:
            self._error(HTTPStatus.FORBIDDEN, "this address is not the page's")
        elif self.path != path:
            self._error(HTTPStatus.NOT_FOUND, "there is no such page")
        else:
            return False
        return True

    def _answer(self, image: bytes) -> None:
        try:
            with self.server.one_at_a_time:
                found = self.server.answer(image)
        except InputError as error:
            self._error(HTTPStatus.BAD_REQUEST, str(error))
        except Exception as error:  # a fault of ours, or of the network's: the server goes on
            traceback.print_exc()
            why = f"the command failed, its terminal says where ({reason(error)})"
            self._error(HTTPStatus.INTERNAL_SERVER_ERROR, why)
        else:
            self._send(HTTPStatus.OK, "application/json", json.dumps(found).encode())

    def _error(self, status: HTTPStatus, why: str) -> None:
        line = json.dumps({"error": " ".join(why.split())})
        self._send(status, "application/json", line.encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", _POLICY)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: the terminal keeps the address in sight."""
