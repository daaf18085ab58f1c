"""An HTTP reward on the loopback, and a proxy before it whose connections can be slow or cut."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Mode = Literal["through", "slow", "cut", "refused"]
SLOW_S = 1.5
"""Before each answer."""
CUT_BYTES = 20
"""Of an answer that come through before the connection is cut."""

ANSWER_S = 60.0  # longest wait for the rest of an answer


class Scorer(BaseHTTPRequestHandler):
    """Scores a completion by the share of digits in it."""

    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # which the proxy cuts
            super().handle()

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        texts = json.loads(self.rfile.read(length))["completions"]
        shares = [sum(c.isdigit() for c in text) / max(1, len(text)) for text in texts]
        body = json.dumps({"rewards": shares}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@dataclass
class Proxy:
    """Passes connections on to a server on the loopback, as its mode says."""

    server_port: int
    mode: Mode = "through"
    num_disturbed: int = 0  # connections
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/score"

    def serve(self) -> None:
        """Until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.connect, args=(client,), daemon=True).start()

    def connect(self, client: socket.socket) -> None:
        if self.mode == "refused":
            self.num_disturbed += 1
            reset(client)
            return
        with client, socket.create_connection(("127.0.0.1", self.server_port)) as server:
            back = threading.Thread(target=self.answers, args=(server, client), daemon=True)
            back.start()
            with suppress(OSError):
                while data := client.recv(1 << 16):
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)
            back.join(ANSWER_S)

    def answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if self.mode == "slow":
                    self.num_disturbed += 1
                    time.sleep(SLOW_S)
                if self.mode in ("cut", "refused"):
                    self.num_disturbed += 1
                    client.sendall(data[:CUT_BYTES])
                    reset(client)
                    return
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    """End a connection by RST, not FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
    connection.close()


@contextmanager
def http_reward() -> Iterator[Proxy]:
    """A server and the proxy before it, until the context ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scorer)
    server.daemon_threads = True
    proxy = Proxy(server.server_address[1])
    for work in (server.serve_forever, proxy.serve):
        threading.Thread(target=work, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.listener.close()
        server.shutdown()
        server.server_close()
