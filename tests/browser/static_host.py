"""A plain static host: files under a sub-path, with or without the isolation headers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class Host(ThreadingHTTPServer):
    """Serves ``folder`` under ``prefix``, can go down and come back, and records requested paths.

    It is also a proxy that forwards nothing: a browser told to use it for everything reveals every
    request it makes, to any host. Those for other hosts land in ``foreign``. Files whose name ends
    in ``held`` are held back until ``released`` is set. If ``is_tidy``, it redirects ``card.html``
    to ``card`` and ``index.html`` to the folder, as some hosts do.
    """

    daemon_threads = True

    def __init__(self, folder: Path, prefix: str, headers: dict[str, str]) -> None:
        self.prefix, self.headers = prefix, headers
        self.requested: list[str] = []
        self._foreign: list[str] = []
        self.is_down = self.is_tidy = False
        self.held: str | None = None
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))

    @property
    def foreign(self) -> list[str]:
        """Requests to other hosts, except those that Chromium sends to its maker on its own."""
        return [path for path in self._foreign if not path.endswith(".googleapis.com:443")]

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.origin}{self.prefix}/"


class _Handler(SimpleHTTPRequestHandler):
    server: Host

    def log_message(self, *args: Any) -> None:
        pass

    def end_headers(self) -> None:
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def do_CONNECT(self) -> None:
        self.server._foreign.append(self.path)
        self.send_error(403)

    def do_POST(self) -> None:
        self.server._foreign.append(f"POST {self.path}")
        self.send_error(405)

    def do_GET(self) -> None:
        host = self.server
        if host.is_down:
            self.close_connection = True
            self.connection.close()
            return
        path = self.path
        if "://" in path:  # addressed as a proxy
            if not path.startswith(host.origin + "/"):
                host._foreign.append(path)
                self.send_error(403)
                return
            path = path.removeprefix(host.origin)
        host.requested.append(path)
        if not path.startswith(host.prefix + "/"):
            self.send_error(404)
            return
        self.path = path.removeprefix(host.prefix)
        if host.held is not None and self.path.endswith(host.held):
            host.released.wait()
        if host.is_tidy and self.path.endswith(".html"):
            self.send_response(308)
            bare = self.path.removesuffix(".html").removesuffix("/index")
            self.send_header("Location", host.prefix + (bare or "/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if host.is_tidy and self.path == "/card":
            self.path += ".html"
        super().do_GET()


@contextmanager
def serve(folder: Path, prefix: str = "", headers: dict[str, str] | None = None) -> Iterator[Host]:
    host = Host(folder, prefix, headers or {})
    thread = threading.Thread(target=host.serve_forever, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.released.set()
        host.shutdown()
        host.server_close()
        thread.join()
