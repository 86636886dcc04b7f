"""Files from URLs: a broken connection is taken up again where it ended, also by a later process."""

from __future__ import annotations

import http.client
import logging
import time
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from robustdistiller.common.files import file_digest, write_text

logger = logging.getLogger(__name__)

TIMEOUT_S = 30
ATTEMPTS, PAUSE_S = 4, 1.0  # attempts that get no further
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_BEYOND_THE_END = 416


class ChecksumError(OSError):
    """What was downloaded is not what was published."""


def download(url: str, file: Path, checksum: str = "", progress: bool = True, keep: bool = False) -> None:
    """Download ``url`` to ``file``, which holds a part of it until this returns.

    Args:
        url: the file.
        file: written to; an existing one is overwritten unless ``keep``.
        checksum: what its checksum has to be: ``sha256:`` or ``md5:`` and hexadecimal digits; empty is not looked at.
        progress: show a bar where there is a terminal.
        keep: go on from the part that an earlier process left. Beside it, ``file.version`` says which version of the
            file it is of; :func:`remove_part` removes both.

    Raises:
        ChecksumError: the file has another checksum.
        OSError: the download failed, a web page came instead, or the disk is full, in one sentence; the part stays.
    """
    with (
        file.open("r+b" if keep and file.exists() else "wb") as output,
        tqdm(unit="B", unit_scale=True, desc=file_name(url), disable=None if progress else True) as bar,
    ):
        transfer = _Transfer(url, output, bar, _version_of(file) if keep else None)
        failures, furthest = 0, 0
        while True:
            try:
                transfer.go_on()
                break
            except (OSError, http.client.HTTPException) as error:
                failures = 1 if output.tell() > furthest else failures + 1
                furthest = max(furthest, output.tell())
                refused = isinstance(error, HTTPError) and error.code not in _TRANSIENT
                if refused or failures == ATTEMPTS or not _of_the_network(error):
                    raise _plain(error) from error
                logger.warning("%s: %s; trying again", url, _plain(error))
                time.sleep(PAUSE_S * failures)
    verify(file, checksum)


def remove_part(file: Path) -> None:
    """Remove what :func:`download` with ``keep`` left."""
    file.unlink(missing_ok=True)
    _version_of(file).unlink(missing_ok=True)


def _version_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.version")


def verify(file: Path, checksum: str) -> None:
    """Compare a file with its published checksum, see :func:`download`.

    Raises:
        ChecksumError: it has another.

    Example:
        >>> verify(write_text("a.txt", "a"), "md5:0cc175b9c0f1b6a831c399e269772661")
    """
    if checksum:
        algorithm, _, expected = checksum.partition(":")
        found = file_digest(file, algorithm)
        if found != expected:
            name = {"sha256": "SHA-256", "md5": "MD5"}[algorithm]
            raise ChecksumError(f"its {name} is {found}, expected {expected}")


def file_name(url: str) -> str:
    """The last part of a URL's path; a query is left out.

    Example:
        >>> file_name("https://example.org/data/a%20b.zip?version=2")
        'a b.zip'
    """
    return unquote(urlsplit(url).path).rpartition("/")[2]


class _Transfer:
    """One file on its way. A server that says which version it sends is asked for the rest of that version only."""

    def __init__(self, url: str, output: BinaryIO, bar: tqdm, note: Path | None) -> None:
        self.url, self.output, self.bar, self.note = url, output, bar, note
        self.version = note.read_text(encoding="utf-8") if note and note.is_file() else None
        output.seek(0, 2)

    def go_on(self) -> None:
        """Append what is missing, or begin anew where the server does not give parts."""
        start = self.output.tell() if self.version else 0
        headers = {"User-Agent": "robustdistiller", "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={start}-", "If-Range": self.version} if start else {}
        try:
            url = quote(self.url, safe="!#$%&'()*+,/:;=?@[]~")  # as browsers do, which show spaces and letters
            response = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)
        except HTTPError as error:
            if error.code != _BEYOND_THE_END or not start:
                raise
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return  # it was complete
            self.version = None
            return self.go_on()
        with response:
            if not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
                start = 0
            self.output.truncate(self.output.seek(start))
            self._note_version(response.headers.get("ETag") or response.headers.get("Last-Modified"))
            length = int(response.headers.get("Content-Length") or 0)
            self.bar.n, self.bar.total = start, start + length if length else None
            is_page = response.headers.get_content_type() == "text/html"
            while block := response.read(1 << 20):
                if is_page and not self.output.tell() and block.lstrip().startswith(b"<"):
                    raise OSError("the server sent a web page, not a file: is it the address of the file itself?")
                self.output.write(block)
                self.bar.update(len(block))
        if length and self.output.tell() != start + length:
            raise URLError(f"the connection ended after {self.output.tell()} of {start + length} bytes")

    def _note_version(self, version: str | None) -> None:
        self.version = version
        if self.note:
            write_text(self.note, version) if version else self.note.unlink(missing_ok=True)


def _of_the_network(error: Exception) -> bool:
    return isinstance(error, (URLError, http.client.HTTPException, ConnectionError, TimeoutError))


def _plain(error: Exception) -> OSError:
    """The same as an OSError of one line; an error of the disk stays what it is."""
    if isinstance(error, HTTPError):
        return OSError(f"the server answered {error.code} {error.reason}")
    if isinstance(error, URLError):
        return OSError(f"{error.reason}")
    if isinstance(error, http.client.IncompleteRead):
        return OSError("the connection ended before the file did")
    if isinstance(error, OSError) and not _of_the_network(error):
        return error
    return OSError(" ".join(f"{type(error).__name__}: {error}".split()))
