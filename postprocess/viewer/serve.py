"""The published folder over HTTP on this machine, for a browser; a bucket serves itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mosaic_core.contract.errors import InputError
from postprocess.objects.content import content_type


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files with the types that a bucket gives them; says nothing."""

    def guess_type(self, path: str) -> str:  # type: ignore[override]
        return content_type(path)

    def list_directory(self, path: str) -> None:  # type: ignore[override]  # noqa: ARG002
        self.send_error(404, "no such object")

    def log_message(self, *_: object) -> None:
        """Requests are not news."""


@contextmanager
def serving(root: Path, port: int = 0, host: str = "127.0.0.1") -> Iterator[ThreadingHTTPServer]:
    """A server of the files below `root`; the caller runs its `serve_forever`.

    InputError when nothing is published there or the port is taken.
    """
    if not (root / "index.json").is_file():
        raise InputError(
            "nothing is published in this folder",
            where=str(root),
            remedy="give a published root; of a bucket, open its own https address",
        )
    try:
        server = ThreadingHTTPServer((host, port), partial(_Quiet, directory=str(root)))
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror}", remedy="choose another --port"
        ) from None
    with server:
        yield server
