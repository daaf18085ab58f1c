"""A model hub of this process: the endpoints that creating a repository and an upload use."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "hf_of-this-test"


class Hub(ThreadingHTTPServer):
    """Keeps what was sent to it. Files whose names are in `lfs` go by the large-file protocol."""

    daemon_threads = True

    def __init__(self, lfs: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lfs = lfs
        self.repos: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}  # path -> content, or what an object's id stands for
        self.objects: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.unknown: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None: ...

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, content: object, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self) -> None:
        self.server.unknown.append(f"{self.command} {self.path}")
        self.answer({"error": "no such endpoint"}, 404)

    def do_POST(self) -> None:
        body = self.body()
        if self.headers.get("Authorization") != f"Bearer {SECRET}":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.server.repos[name] = asked
            return self.answer({"url": f"{self.server.url}/{name}"})
        if "/preupload/" in self.path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"] in self.server.lfs else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            return self.commit([json.loads(line) for line in body.splitlines() if line])
        return self.refuse()

    def commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.objects[value["oid"]]
        repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        oid = "0" * 40
        self.answer({"commitUrl": f"{self.server.url}/{repo}/commit/{oid}", "commitOid": oid})

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self.body()
        self.answer({})

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            repo = "/".join(self.path.removeprefix("/api/models/").split("/")[:2])
            siblings = [{"rfilename": name} for name in self.server.files]
            return self.answer({"id": repo, "sha": "0" * 40, "siblings": siblings})
        return self.refuse()


@contextmanager
def hub(lfs: tuple[str, ...] = ()) -> Iterator[Hub]:
    server = Hub(lfs)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
