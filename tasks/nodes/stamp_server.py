"""`GET /stamp` and `GET /healthz` for the pods beside the agent: two facts to read, nothing to write."""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CLIENT_TIMEOUT_S = 5.0


def serve(address: tuple[str, int], stamp: Callable[[], int | None]) -> ThreadingHTTPServer:
    """Start answering on a thread; `stamp` gives Unix seconds until when dear checks hold, or None."""

    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_TIMEOUT_S

        def do_GET(self) -> None:
            match self.path:
                case "/stamp":
                    self._answer(json.dumps({"dear_ok_until": stamp()}), "application/json")
                case "/healthz":
                    self._answer("ok\n", "text/plain")
                case _:
                    self.send_error(HTTPStatus.NOT_FOUND)

        def _answer(self, text: str, kind: str) -> None:
            body = text.encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def version_string(self) -> str:
            return "headrace"

        def log_message(self, format: str, *arguments: object) -> None:
            """Every pod asks, and what it asks is its own text: nothing for a log."""

    server = ThreadingHTTPServer(address, Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
