"""Files that a command may fetch, with what is published of their sizes and checksums; corpora of noise and rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robustdistiller.common.download import file_name
from robustdistiller.eval.tasks.corpora import Corpus

OPENSLR = "https://www.openslr.org/resources"


@dataclass(frozen=True)
class Archive:
    """One file to fetch.

    Attributes:
        url: where it is published.
        checksum: as published, see `common.download.download`; empty where none is: its size is then compared with
            what the server says, and the archive has checksums of its own inside.
        size_gb, unpacked_gb: about what it needs on the disk.
        folder: of the corpus, that it unpacks to; empty for a file that is used as it is.
        files: how many audio files that folder then holds at least.
        bare: it holds no folder of its own.
        file: its name, where that is not the last part of the URL.
    """

    url: str
    checksum: str = ""
    size_gb: float = 0.0
    unpacked_gb: float = 0.0
    folder: str = ""
    files: int = 0
    bare: bool = False
    file: str = ""

    @property
    def name(self) -> str:
        """Its name on this machine and on a mirror."""
        return self.file or file_name(self.url)


@dataclass(frozen=True)
class Offer:
    """Corpora that are fetched together.

    Attributes:
        corpora: what they are, with their terms.
        archives: their files.
    """

    corpora: tuple[Corpus, ...]
    archives: tuple[Archive, ...]


# One commit, so that the content does not change; GitHub makes the archive anew, and its checksum with it.
_ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"

#: Corpora of noise and rooms, for conditions and for training.
BACKGROUNDS: Mapping[str, Offer] = {
    "musan": Offer(
        (Corpus("MUSAN", "openslr.org/17", "CC BY 4.0"),),
        (
            Archive(
                f"{OPENSLR}/17/musan.tar.gz",
                checksum="md5:0c472d4fc0c5141eca47ad1ffeb2a7df",
                size_gb=11.09,
                unpacked_gb=12.5,
                folder="musan",
                files=2_016,
            ),
        ),
    ),
    "rirs_noises": Offer(
        (Corpus("RIRS_NOISES", "openslr.org/28", "Apache 2.0"),),
        (
            Archive(
                f"{OPENSLR}/28/rirs_noises.zip",
                checksum="md5:e6f48e257286e05de56413b4779d8ffb",
                size_gb=1.31,
                unpacked_gb=6.0,
                folder="RIRS_NOISES",
                files=60_000,
            ),
        ),
    ),
    "esc-50": Offer(
        (Corpus("ESC-50", "github.com/karolpiczak/ESC-50", "CC BY-NC 3.0"),),
        (
            Archive(
                f"https://github.com/karolpiczak/ESC-50/archive/{_ESC50_COMMIT}.zip",
                size_gb=0.65,
                unpacked_gb=0.9,
                folder=f"ESC-50-{_ESC50_COMMIT}",
                files=2_000,
                file="ESC-50.zip",
            ),
        ),
    ),
}
