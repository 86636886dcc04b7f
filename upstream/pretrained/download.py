"""Files from plain URLs, kept in s3prl's cache folder: what s3prl downloaded is found, and the other way round."""

from __future__ import annotations

import hashlib
import logging
import sys
from pathlib import Path

from robustdistiller.common.download import download, file_name
from robustdistiller.common.files import remove_leftovers, write_atomically
from robustdistiller.common.locks import locked

logger = logging.getLogger(__name__)


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
            write_atomically(path, lambda file: download(url, file, f"sha256:{sha256}" if sha256 else ""))
    return path


def cached_path(url: str) -> Path:
    """Where s3prl keeps what it downloaded from ``url``. A query is left out of the name, whose ending says what it is.

    Example:
        >>> cached_path("https://example.org/a.ckpt?version=2").name[-7:]
        '.a.ckpt'
    """
    s3prl = sys.modules.get("s3prl.util.download")  # its folder can be changed with set_dir
    folder = Path(s3prl.get_dir()) if s3prl else Path.home() / ".cache" / "s3prl" / "download"
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()}.{file_name(url)}"
