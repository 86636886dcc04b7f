"""The checkpoints that RobustDistiller's authors released, and the mini teacher that ships with this package."""

from __future__ import annotations

import hashlib
import logging
import os
from importlib.resources import as_file, files
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from .checkpoints.files import existing_file, write_atomically

logger = logging.getLogger(__name__)

_BASE_URL = "https://huggingface.co/Hguimaraes/robustdistiller/resolve/main"
#: Students of HuBERT Base, WavLM Base+ and Robust HuBERT (https://arxiv.org/abs/2302.09437), about 363 MB each.
URLS = {
    "robustdistiller_hubert": f"{_BASE_URL}/rd_hubert.ckpt",
    "robustdistiller_wavlm": f"{_BASE_URL}/rd_wavlm.ckpt",
    "robustdistiller_robust_hubert": f"{_BASE_URL}/rd_rhubert.ckpt",
}
_TIMEOUT_S = 30


def resolve_released(name: str, ckpt: str | Path | None = None, refresh: bool = False) -> Path:
    """The local file of a released checkpoint, downloaded on first use into s3prl's cache folder.

    Looked for in this order: ``ckpt``, the file that the environment variable ``<NAME>_CKPT`` names (such as
    ``ROBUSTDISTILLER_WAVLM_CKPT``), the cache, the web.

    Args:
        name: a key of :data:`URLS`.
        ckpt: a local copy.
        refresh: download again.

    Raises:
        ValueError: the name is unknown.
        FileNotFoundError: the local copy is not there, or there is none and the download failed.

    >>> resolve_released("robustdistiller_wavlm", ckpt="/nowhere/rd_wavlm.ckpt")
    Traceback (most recent call last):
    FileNotFoundError: checkpoint /nowhere/rd_wavlm.ckpt: expected a file, found nothing there
    """
    if name not in URLS:
        raise ValueError(f"no released checkpoint is called {name!r}; there are {', '.join(URLS)}")
    variable = f"{name.upper()}_CKPT"
    local = ckpt or os.environ.get(variable)
    if local:
        return existing_file(local)
    url, path = URLS[name], cached_path(URLS[name])
    try:
        return fetch(url, refresh)
    except OSError as error:
        raise FileNotFoundError(
            f"{name} needs {url}, which could not be fetched ({error}): download it elsewhere and put it at {path}, "
            f"or point to your copy with -k FILE or {variable}=FILE"
        ) from error


def fetch(url: str, refresh: bool = False) -> Path:
    """Download ``url`` into s3prl's cache folder unless it is there; the file appears when it is complete.

    Raises:
        OSError: the download failed.
    """
    path = cached_path(url)
    if refresh or not path.is_file():
        logger.info("downloading %s to %s", url, path)
        write_atomically(path, lambda file: _download(url, file))
    return path


def cached_path(url: str) -> Path:
    """Where s3prl keeps what it downloaded from ``url``: the same file serves both.

    >>> cached_path("https://example.org/a.ckpt").name[-7:]
    '.a.ckpt'
    """
    from s3prl.util.download import get_dir

    return Path(get_dir()) / f"{hashlib.sha256(url.encode()).hexdigest()}.{Path(url).name}"


def mini_teacher() -> Path:
    """The checkpoint of the mini teacher that ships with this package.

    Raises:
        FileNotFoundError: this installation lacks it.

    >>> mini_teacher().name
    'teacher.ckpt'
    """
    with as_file(files("robustdistiller.mini") / "teacher" / "teacher.ckpt") as path:
        return existing_file(path)


def _download(url: str, file: Path) -> None:
    request = Request(url, headers={"User-Agent": "robustdistiller"})
    with urlopen(request, timeout=_TIMEOUT_S) as response, file.open("wb") as output:
        expected = int(response.headers.get("Content-Length") or 0)
        with tqdm(total=expected or None, unit="B", unit_scale=True, desc=Path(url).name, disable=None) as bar:
            while block := response.read(1 << 20):
                output.write(block)
                bar.update(len(block))
        if expected and output.tell() != expected:
            raise URLError(f"the connection ended after {output.tell()} of {expected} bytes")
