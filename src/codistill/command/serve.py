"""`codistill serve`: a page on this machine that classifies a photograph with every classifier."""

import argparse

from codistill.command.options import Parser, add_trust
from codistill.errors import InputError


def main(argv: list[str]) -> int:
    """`codistill serve MODEL`; Ctrl-C ends it."""
    parser = Parser(
        prog="codistill serve",
        description="Shows a page on this machine that classifies a photograph: for a finished run "
        "the answer and the heat map of every classifier, otherwise the answer of one network.",
        epilog="Example: codistill serve runs/photos --port 8000",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="folder of a run or of an export, or student.safetensors"
    )
    parser.add_argument(
        "--port", type=_port, metavar="N", default=0, help="port (default: a free one)"
    )
    parser.add_argument(
        "--device", default="auto", help="device to compute on, such as cpu or cuda:1"
    )
    add_trust(parser)
    options = parser.parse_args(argv)

    from codistill.messages import note
    from codistill.reporting.live.answers import Answers
    from codistill.reporting.live.server import Server

    answers = Answers(options.model, options.device, options.trust_code == "true")
    if answers.note:
        note(answers.note)
    try:
        server = Server(answers, options.port)
    except OSError as error:
        raise InputError(f"--port {options.port} cannot be used: {error.strerror}") from error
    with server:
        print(f"{server.address}  (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()  # after the terminal's ^C
    return 0


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port, 0 to 65535")
    return int(text)
