"""An HTTP proxy before an object store that errs by order.

::

    program --> FaultProxy --> S3 server

Requests that match a `Fault` are answered with it, all others by the server itself.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

READS, WRITES = ("GET", "HEAD"), ("PUT", "POST", "DELETE")
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
ANSWERS = {
    "SlowDown": (503, "Please reduce your request rate."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "ExpiredToken": (403, "The provided token has expired."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist."),
}


@dataclass
class Fault:
    """What goes wrong.

    ``kind`` is a key of `ANSWERS`, or "cut" (half of the body, then nothing), "drop" (the
    connection is closed without an answer) or "late" (the answer comes after ``seconds``).
    """

    kind: str
    verbs: tuple[str, ...] = READS
    path: str = ""
    """Part of the path of the requests that are struck."""
    after: int = 0
    """Matching requests that pass before."""
    times: int | None = None
    """Requests that are struck; None for all from then on."""
    token: str = ""
    """Only requests with this session token are struck."""
    seconds: float = 0.0


class FaultProxy:
    """Serves on a free port of this machine; `close` it."""

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("http://").split(":")
        self.target = (host, int(port))
        self.fault: Fault | None = None
        self.struck: list[float] = []
        """When each fault was given."""
        self.reads = self.writes = self._matched = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def order(self, fault: Fault | None) -> None:
        """Strike from now on by this fault alone, or none."""
        with self._lock:
            self.fault, self.struck = fault, []
            self.reads = self.writes = self._matched = 0

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def choose(self, verb: str, path: str, token: str) -> Fault | None:
        """The fault that a request is struck by."""
        with self._lock:
            self.reads += verb in READS
            self.writes += verb in WRITES
            fault = self.fault
            if fault is None or verb not in fault.verbs or fault.path not in path:
                return None
            if fault.token and fault.token != token:
                return None
            self._matched += 1
            if self._matched <= fault.after:
                return None
            if fault.times is not None and self._matched > fault.after + fault.times:
                return None
            self.struck.append(time.monotonic())
            return fault


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    proxy: FaultProxy
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = self.headers.get("X-Amz-Security-Token") or ""
        fault = self.proxy.choose(self.command, self.path, token)
        if fault is not None and fault.kind in ANSWERS:
            self.refuse(fault.kind)
        elif fault is not None and fault.kind == "drop":
            self.hang_up()
        else:
            if fault is not None and fault.kind == "late":
                time.sleep(fault.seconds)
            self.pass_on(body, cut=fault is not None and fault.kind == "cut")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def pass_on(self, body: bytes, cut: bool) -> None:
        """The server's own answer, whole or cut in its middle."""
        server = http.client.HTTPConnection(*self.proxy.target, timeout=60)
        server.request(self.command, self.path, body, dict(self.headers))
        answer = server.getresponse()
        content = answer.read()
        length = answer.headers["Content-Length"] if self.command == "HEAD" else str(len(content))
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        server.close()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.hang_up()

    def refuse(self, code: str) -> None:
        """An error as S3 words it."""
        status, message = ANSWERS[code]
        text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else text)

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def handle(self) -> None:
        """Clients hang up too, when they have waited long enough."""
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Say nothing."""
