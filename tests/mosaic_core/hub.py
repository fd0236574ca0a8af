"""A real HTTP server that speaks enough of the Hugging Face hub to be fetched from.

Serves `/api/models/REPO/revision/REV` and `/REPO/resolve/COMMIT/PATH` with Range, and can be told
to fail.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

REPOSITORY = "maxxxzdn/mosaic"
COMMITS = {"main": "a" * 40, "v2": "b" * 40}


@dataclass
class Hub:
    """The server's content and its faults; `requests` is what it was asked."""

    files: dict[str, bytes]
    plain: set[str] = field(default_factory=set)  # paths without a SHA-256 as their etag
    break_after: dict[str, int] = field(default_factory=dict)  # bytes, then the line drops, once
    lie_about: set[str] = field(default_factory=set)  # paths whose announced digest is wrong
    down: bool = False
    commits: dict[str, str] = field(default_factory=lambda: dict(COMMITS))
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            content = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def fetched(self) -> list[tuple[str, str | None]]:
        """Path and range of every GET of a file."""
        return [
            (path.rpartition("/")[2], span)
            for method, path, span in self.requests
            if method == "GET" and "/resolve/" in path
        ]

    def etag(self, path: str) -> str:
        content = self.files[path] + (b"?" if path in self.lie_about else b"")
        if path in self.plain:
            return hashlib.sha1(content).hexdigest()
        return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    content: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub, path = self.content, self.path.partition("?")[0]
        hub.requests.append((self.command, path, self.headers.get("Range")))
        api, resolve = f"/api/models/{REPOSITORY}", f"/{REPOSITORY}/resolve/"
        if hub.down:
            self._refuse(500, "InternalError", body)
        elif path.startswith(api):
            self._revision(path.removeprefix(api).removeprefix("/revision/") or "main")
        elif path.startswith(resolve):
            commit, _, name = path.removeprefix(resolve).partition("/")
            if commit not in hub.commits.values():
                self._refuse(404, "RevisionNotFound", body)
            elif name not in hub.files:
                self._refuse(404, "EntryNotFound", body)
            else:
                self._file(name, commit, body)
        else:
            self._refuse(404, "RepoNotFound", body)

    def _revision(self, revision: str) -> None:
        commit = self.content.commits.get(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", True)
            return
        content = json.dumps({"id": REPOSITORY, "modelId": REPOSITORY, "sha": commit}).encode()
        self._headers(200, len(content), {"Content-Type": "application/json"})
        self.wfile.write(content)

    def _file(self, name: str, commit: str, body: bool) -> None:
        hub, content = self.content, self.content.files[name]
        start, status, headers = 0, 200, {"ETag": f'"{hub.etag(name)}"', "X-Repo-Commit": commit}
        span = self.headers.get("Range")
        if span:
            start, status = int(span.removeprefix("bytes=").partition("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers |= {"X-Linked-Size": str(len(content)), "Accept-Ranges": "bytes"}
        self._headers(status, len(content) - start, headers)
        if not body:
            return
        stop = hub.break_after.pop(name, None)
        self.wfile.write(content[start:stop])
        if stop is not None:
            self.wfile.flush()
            self.close_connection = True

    def _refuse(self, status: int, code: str, body: bool) -> None:
        content = json.dumps({"error": code}).encode()
        self._headers(status, len(content), {"X-Error-Code": code, "X-Error-Message": code})
        if body:
            self.wfile.write(content)

    def _headers(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
