"""An API server on the loopback that answers by a script: what it is asked, it notes."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kubernetes import client

from tasks.cluster.api import Api

Object = dict[str, Any]
Answer = Callable[["Handler"], None]
PATIENCE_S = 5.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"  # type: ignore[assignment]

    def _do(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.next_answer(self.command, url.path, dict(parse_qsl(url.query)), body)(self)

    do_GET = do_POST = do_PATCH = do_DELETE = _do  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass

    def cut(self) -> None:
        """Drop the connection without another word."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """Answers requests one after the other by `script`; once that is over, it only holds them."""

    daemon_threads = True

    def __init__(self, *script: Answer, port: int = 0) -> None:
        self.allow_reuse_address = True
        super().__init__(("127.0.0.1", port), Handler)
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.is_over = threading.Event()
        """Everything in the script was asked for, and something more."""
        self.released = threading.Event()
        """Set, it lets go of what it holds."""
        self._script, self._lock = list(script), threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def next_answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        with self._lock:
            self.asked.append((method, path, query, body))
            if self._script:
                return self._script.pop(0)
        self.is_over.set()
        return hold

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is none."""


class Routed(Server):
    """Answers by method and path, `WATCH` for a watch: one answer after the other, the last for ever.

    A watch without an answer is held, anything else is not there.
    """

    def __init__(self, routes: dict[tuple[str, str], list[Answer]]) -> None:
        self._routes = routes
        super().__init__()

    def next_answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        route = ("WATCH" if "watch" in query else method, path)
        with self._lock:
            self.asked.append((*route, query, body))
            answers = self._routes.get(route)
            if not answers:
                return streams(end=hold) if route[0] == "WATCH" else refuses(404, "NotFound")
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def was_asked(self, method: str, path: str) -> list[Any]:
        """The bodies of all such requests, None for one without."""
        with self._lock:
            return [body for *route, _, body in self.asked if route == [method, path]]


@contextmanager
def routed(routes: dict[tuple[str, str], list[Answer]]) -> Iterator[tuple[Routed, Api]]:
    server = Routed(routes)
    try:
        yield server, api_at(server.port)
    finally:
        server.stop()


@contextmanager
def serving(*script: Answer, port: int = 0) -> Iterator[tuple[Server, Api]]:
    server = Server(*script, port=port)
    try:
        yield server, api_at(server.port)
    finally:
        server.stop()


def api_at(port: int) -> Api:
    settings = client.Configuration(host=f"http://127.0.0.1:{port}")
    settings.retries = False
    return Api(client.ApiClient(settings))


def kubeconfig(path: Path, port: int) -> Path:
    """Access to the server at `port`, written to `path`."""
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    }  # fmt: skip
    path.write_text(json.dumps(document))  # JSON is YAML
    return path


def says(body: object, code: int = 200) -> Answer:
    """The object as JSON, or the bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(to: Handler) -> None:
        to.send_response(code)
        to.send_header("Content-Length", str(len(data)))
        to.end_headers()
        to.wfile.write(data)

    return answer


def refuses(code: int, reason: str, message: str = "") -> Answer:
    """A Status, as an API server's no is one."""
    return says(status(code, reason, message), code)


def status(code: int, reason: str, message: str = "") -> Object:
    return {
        "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message
    }  # fmt: skip


def lists(version: int, *objects: Object) -> Answer:
    return says({"metadata": {"resourceVersion": str(version)}, "items": list(objects)})


def lists_page(version: int, rest: str, *objects: Object) -> Answer:
    """A part of a list; `rest` is what the next one must be asked for with."""
    return says(
        {"metadata": {"resourceVersion": str(version), "continue": rest}, "items": list(objects)}
    )


def thing(name: str, version: int = 1, **more: object) -> Object:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, **more}


def event(kind: str, of: Object) -> bytes:
    return json.dumps({"type": kind, "object": of}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def streams(*pieces: bytes, end: Callable[[Handler], None] | None = None) -> Answer:
    """A watch of these pieces, which need not be whole lines; then its end as the protocol has it."""

    def answer(to: Handler) -> None:
        to.send_response(200)
        to.send_header("Transfer-Encoding", "chunked")
        to.end_headers()
        for piece in pieces:
            to.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            to.wfile.flush()
        if end is None:
            to.wfile.write(b"0\r\n\r\n")
        else:
            end(to)

    return answer


def hold(to: Handler) -> None:
    to.server.released.wait(PATIENCE_S)
    to.close_connection = True


def cut(to: Handler) -> None:
    to.cut()
