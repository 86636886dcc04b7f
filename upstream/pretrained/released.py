"""Released checkpoints (RobustDistiller, DPHuBERT), and the mini teacher that ships with this package."""

from __future__ import annotations

import hashlib
import logging
import os
from importlib.resources import as_file, files
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from robustdistiller.common.files import write_atomically
from robustdistiller.upstream.checkpoints.files import checkpoint_digest, existing_file

logger = logging.getLogger(__name__)

_BASE_URL = "https://huggingface.co/Hguimaraes/robustdistiller/resolve/main"
_DPHUBERT_URL = "https://huggingface.co/pyf98/DPHuBERT/resolve/main"
#: Students of HuBERT Base, WavLM Base+ and Robust HuBERT (https://arxiv.org/abs/2302.09437), about 363 MB each; of the
#: pruned WavLM Base+ (https://arxiv.org/abs/2403.08654), 99 MB; and DPHuBERT's own (https://arxiv.org/abs/2305.17651).
URLS = {
    "robustdistiller_hubert": f"{_BASE_URL}/rd_hubert.ckpt",
    "robustdistiller_wavlm": f"{_BASE_URL}/rd_wavlm.ckpt",
    "robustdistiller_robust_hubert": f"{_BASE_URL}/rd_rhubert.ckpt",
    "robustdistiller_dpwavlm": f"{_BASE_URL}/RDDPWavLM-sp0.75.pth",
    "dphubert": f"{_DPHUBERT_URL}/DPHuBERT-sp0.75.pth",
    "dpwavlm": f"{_DPHUBERT_URL}/DPWavLM-sp0.75.pth",
}
#: SHA-256 of released files, where their publisher states it.
CHECKSUMS = {
    "dphubert": "384d72429163b79cd9f4deaf41aa2cbc990e7526b4430f2a22d40c5e70c14be7",
    "dpwavlm": "932dff02604b20dc3392ea8962f5940b9ac52b01948db68afae036dd6eaa94c1",
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
        return fetch(url, refresh, CHECKSUMS.get(name))
    except OSError as error:
        raise FileNotFoundError(
            f"{name} needs {url}, which could not be fetched ({error}): download it elsewhere and put it at {path}, "
            f"or point to your copy with -k FILE or {variable}=FILE"
        ) from error


def fetch(url: str, refresh: bool = False, sha256: str | None = None) -> Path:
    """Download ``url`` into s3prl's cache folder unless it is there; the file appears when it is complete.

    Args:
        url: the file.
        refresh: download it again.
        sha256: what its SHA-256 has to be, in hexadecimal.

    Raises:
        OSError: the download failed, or it has another checksum.
    """
    path = cached_path(url)
    if refresh or not path.is_file():
        logger.info("downloading %s to %s", url, path)
        write_atomically(path, lambda file: _download(url, file, sha256))
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


def _download(url: str, file: Path, sha256: str | None) -> None:
    request = Request(url, headers={"User-Agent": "robustdistiller"})
    with urlopen(request, timeout=_TIMEOUT_S) as response, file.open("wb") as output:
        expected = int(response.headers.get("Content-Length") or 0)
        with tqdm(total=expected or None, unit="B", unit_scale=True, desc=Path(url).name, disable=None) as bar:
            while block := response.read(1 << 20):
                output.write(block)
                bar.update(len(block))
        if expected and output.tell() != expected:
            raise URLError(f"the connection ended after {output.tell()} of {expected} bytes")
    if sha256 and (found := checkpoint_digest(file)) != sha256:
        raise URLError(f"its SHA-256 is {found}, expected {sha256}")
