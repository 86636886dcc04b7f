"""Files from plain URLs, kept in s3prl's cache folder: what s3prl downloaded is found, and the other way round."""

from __future__ import annotations

import hashlib
import http.client
import logging
import sys
import time
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from robustdistiller.common.files import file_digest, remove_leftovers, write_atomically
from robustdistiller.common.locks import locked

logger = logging.getLogger(__name__)

TIMEOUT_S = 30
ATTEMPTS, PAUSE_S = 4, 1.0
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


def fetch(url: str, refresh: bool = False, sha256: str | None = None) -> Path:
    """Download ``url`` unless it is there. The file appears when it is complete.

    A connection that breaks is taken up again where it ended, a few times. Processes that want the same file wait for
    the one that is downloading it.

    Args:
        url: the file.
        refresh: download it again.
        sha256: what its SHA-256 has to be, in hexadecimal; looked at when it is downloaded.

    Raises:
        OSError: the download failed, or it has another checksum; in one sentence.
    """
    path = cached_path(url)
    if path.is_file() and not refresh:
        return path
    with locked(path.with_name(f"{path.name}.lock")):  # s3prl's lock as well
        if refresh or not path.is_file():
            remove_leftovers(path.parent)  # of downloads that were killed
            logger.info("downloading %s to %s", url, path)
            write_atomically(path, lambda file: _download(url, file, sha256))
    return path


def cached_path(url: str) -> Path:
    """Where s3prl keeps what it downloaded from ``url``. A query is left out of the name, whose ending says what it is.

    Example:
        >>> cached_path("https://example.org/a.ckpt?version=2").name[-7:]
        '.a.ckpt'
    """
    s3prl = sys.modules.get("s3prl.util.download")  # its folder can be changed with set_dir
    folder = Path(s3prl.get_dir()) if s3prl else Path.home() / ".cache" / "s3prl" / "download"
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()}.{Path(unquote(urlsplit(url).path)).name}"


def _download(url: str, file: Path, sha256: str | None) -> None:
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    with file.open("wb") as output, tqdm(unit="B", unit_scale=True, desc=name, disable=None) as bar:
        transfer = _Transfer(url, output, bar)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                transfer.go_on()
                break
            except (OSError, http.client.HTTPException) as error:
                refused = isinstance(error, HTTPError) and error.code not in _TRANSIENT
                if refused or attempt == ATTEMPTS or not _of_the_network(error):
                    raise _plain(error) from error
                logger.warning("%s: %s; trying again", url, _plain(error))
                time.sleep(PAUSE_S * attempt)
    if sha256 and (found := file_digest(file)) != sha256:
        raise OSError(f"its SHA-256 is {found}, expected {sha256}")


class _Transfer:
    """One file on its way. A server that says which version it sends is asked for the rest of that version only."""

    def __init__(self, url: str, output: BinaryIO, bar: tqdm) -> None:
        self.url, self.output, self.bar = url, output, bar
        self.version: str | None = None

    def go_on(self) -> None:
        """Append what is missing, or begin anew where the server does not give parts."""
        start = self.output.tell() if self.version else 0
        headers = {"User-Agent": "robustdistiller", "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={start}-", "If-Range": self.version} if start else {}
        with urlopen(Request(self.url, headers=headers), timeout=TIMEOUT_S) as response:
            if not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
                start = 0
            self.output.truncate(self.output.seek(start))
            self.version = response.headers.get("ETag") or response.headers.get("Last-Modified")
            length = int(response.headers.get("Content-Length") or 0)
            self.bar.n, self.bar.total = start, start + length if length else None
            while block := response.read(1 << 20):
                self.output.write(block)
                self.bar.update(len(block))
        if length and self.output.tell() != start + length:
            raise URLError(f"the connection ended after {self.output.tell()} of {start + length} bytes")


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
