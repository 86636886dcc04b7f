"""A local server in place of the web, whose connections break when they should."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Files by their path in the URL.

    Attributes:
        files: content by path, ``/a.ckpt``.
        asked: method, path and range of each request.
        cuts: bytes after which the next connections break that would give more.
        statuses: what the next requests are answered instead.
        chunked: send no length.
        gives_parts: understand ranges.
        media_type: of what is sent; empty says none.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.chunked = False
        self.gives_parts = True
        self.media_type = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            do_HEAD = do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request, and the end of its connection."""
        asked = request.headers.get("Range")
        self.asked.append((request.command, request.path, asked))
        request.close_connection = True
        if self.statuses:
            return self.send(request, self.statuses.pop(0), b"")
        content = self.files.get(request.path.partition("?")[0])
        if content is None:
            return self.send(request, 404, b"")
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        if asked and self.gives_parts and request.headers.get("If-Range") in (None, etag):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            if start >= len(content):
                return self.send(request, 416, b"", {"Content-Range": f"bytes */{len(content)}"})
            part = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            return self.send(request, 206, content[start:], {**part, "ETag": etag})
        return self.send(request, 200, content, {"ETag": etag})

    def send(self, request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict | None = None) -> None:
        """Status, headers and content, as far as the connection holds."""
        request.send_response(status)
        for name, value in {"Connection": "close", **(headers or {})}.items():
            request.send_header(name, value)
        if self.media_type:
            request.send_header("Content-Type", self.media_type)
        if self.chunked:
            request.send_header("Transfer-Encoding", "chunked")
        else:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "HEAD":
            return
        cut = self.cuts.pop(0) if self.cuts and self.cuts[0] < len(content) else None
        content = content[:cut]
        if self.chunked:
            request.wfile.write(b"%x\r\n%s\r\n" % (len(content), content) + (b"0\r\n\r\n" if cut is None else b""))
        else:
            request.wfile.write(content)

    def close(self) -> None:
        """Stop."""
        self._http.shutdown()
        self._http.server_close()
