"""The pre-check asks the node agent, over real HTTP, and believes little."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components.preflight.stamp import Stamp, ask_stamp, holds, stamp_finding

LOCAL = "127.0.0.1"


@contextmanager
def agent(body: bytes, status: int = 200, wait_s: float = 0.0) -> Iterator[tuple[int, list[str]]]:
    """A node agent that answers so; its port, and what it was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            time.sleep(wait_s)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A pre-check that hung up is no error here."""

    server = Server((LOCAL, 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_address[1], paths
    finally:
        server.shutdown()
        server.server_close()


def test_the_agent_says_until_when_the_stamp_holds() -> None:
    body = b'{"dear_ok_until": 1795600000, "agent_commit": "abc", "more": [1]}'
    with agent(body) as (port, paths):
        assert ask_stamp(LOCAL, port) == Stamp(1795600000.0, "abc")
    assert paths == ["/stamp"]


def test_a_node_without_a_stamp_has_none() -> None:
    with agent(b'{"dear_ok_until": null, "agent_commit": null}') as (port, _):
        assert ask_stamp(LOCAL, port) == Stamp()


@pytest.mark.parametrize(
    ("body", "status", "fault"),
    [
        (b"{}", 503, "HTTP 503"),
        (b"<html>", 200, 'no stamp in "<html>"'),
        (b'{"dear_ok_until": "for ever"}', 200, "no stamp in"),
        (b'{"dear_ok_until": 1' + b" " * 5000 + b"}", 200, "no stamp in"),
    ],
)
def test_an_answer_that_is_no_stamp_is_none(body: bytes, status: int, fault: str) -> None:
    with agent(body, status) as (port, _):
        stamp = ask_stamp(LOCAL, port)
    assert stamp.dear_ok_until is None
    assert stamp.fault is not None
    assert fault in stamp.fault


def test_an_agent_that_does_not_answer_in_time_is_not_waited_for() -> None:
    with agent(b"{}", wait_s=0.5) as (port, _):
        assert ask_stamp(LOCAL, port, timeout_s=0.1).fault is not None  # its answer has none


def test_a_node_without_an_agent_says_so() -> None:
    with agent(b"{}") as (port, _):
        pass
    assert ask_stamp(LOCAL, port).fault == "[Errno 111] Connection refused"


@pytest.mark.parametrize(
    ("until", "trusted"),
    [(None, False), (999.0, False), (1001.0, True), (1000 + 24 * 3600, True), (9e9, False)],
)
def test_a_stamp_holds_until_its_time_and_never_longer_than_one_is_given_for(
    until: float | None, trusted: bool
) -> None:
    assert holds(Stamp(until), now=1000.0, hours=24) is trusted


def test_the_report_says_why_dear_checks_are_made() -> None:
    assert stamp_finding(Stamp(fault="gone"), False).message == (
        "the node agent does not answer (gone): dear checks are made"
    )
    assert stamp_finding(Stamp(), False).message == "the node has no stamp: dear checks are made"
    assert stamp_finding(Stamp(1795600000.0), True).message == (
        "the node's stamp says 2026-11-25 09:46 UTC: dear checks are not repeated"
    )
