"""Which corpora a command may fetch: their archives, with what is published of their sizes and checksums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robustdistiller.common.download import file_name
from robustdistiller.common.names import did_you_mean
from robustdistiller.eval import tasks
from robustdistiller.eval.data.librispeech import MODEL
from robustdistiller.eval.data.plan import PrepareError
from robustdistiller.eval.data.speech_commands import TEST_NAME, TRAIN_NAME
from robustdistiller.eval.tasks.corpora import (
    LIBRISPEECH,
    LIBRISPEECH_LEXICA,
    LIBRISPEECH_LM,
    SPEECH_COMMANDS,
    VOICEBANK_DEMAND,
    Corpus,
)

_OPENSLR = "https://www.openslr.org/resources"
_DATASHARE = "https://datashare.ed.ac.uk/bitstreams"
_TENSORFLOW = "https://storage.googleapis.com/download.tensorflow.org/data"
_S3PRL = "https://huggingface.co/datasets/s3prl/g2p/raw/main/lexicon"


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
    checksum: str
    size_gb: float
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


def _librispeech(part: str, md5: str, size_gb: float) -> Archive:
    url, folder = f"{_OPENSLR}/12/{part}.tar.gz", f"LibriSpeech/{part}"
    return Archive(url, f"md5:{md5}", size_gb, 1.02 * size_gb, folder, LIBRISPEECH.counts[part])


def _voicebank(item: str, name: str, md5: str, size_gb: float, files: int) -> Archive:
    url = f"{_DATASHARE}/{item}/download"
    return Archive(url, f"md5:{md5}", size_gb, 1.3 * size_gb, name, files, file=f"{name}.zip")


MUSAN = Corpus("MUSAN", "openslr.org/17", "CC BY 4.0")
RIRS_NOISES = Corpus("RIRS_NOISES", "openslr.org/28", "Apache 2.0")
ESC50 = Corpus("ESC-50", "github.com/karolpiczak/ESC-50", "CC BY-NC 3.0")

# From openslr.org/resources/12/md5sum.txt.
_SPEECH = (
    _librispeech("train-clean-100", "2a93770f6d5c6c964bc36631d331a522", 6.39),
    _librispeech("dev-clean", "42e2234ba48799c1f50f24a7926300a1", 0.34),
    _librispeech("test-clean", "32fa31d27d2e1cad72775fee3f4849a9", 0.35),
)
_LM = Archive(f"{_OPENSLR}/11/{MODEL}", "", 1.4)
_LEXICA = tuple(Archive(f"{_S3PRL}/librispeech-lexicon-{part}-g2p.txt", "", 0.02) for part in ("200k", "allothers"))
# The SHA-256 is the one that torchaudio keeps of it.
_KEYWORDS = (
    Archive(
        f"{_TENSORFLOW}/{TRAIN_NAME}.tar.gz",
        "sha256:743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
        *(1.49, 2.2, TRAIN_NAME, SPEECH_COMMANDS.counts["words"]),
        bare=True,
    ),
    Archive(f"{_TENSORFLOW}/{TEST_NAME}.tar.gz", "", 0.11, 0.2, TEST_NAME, SPEECH_COMMANDS.counts["test"], bare=True),
)
# DataShare shows these MD5s; its older addresses (bitstream/handle/10283/2791) no longer give the files.
_NOISY = (
    _voicebank(
        "245452b6-6235-44b6-a6f9-e7eb19797769",
        *("clean_trainset_28spk_wav", "d2d5a45ec32f8fcbf201bde0447e20ba", 2.49, 11_572),
    ),
    _voicebank(
        "ecb5a102-bb00-46d3-8af5-40c79823b837",
        *("noisy_trainset_28spk_wav", "1fca9e8bafb8cd069f6653c6d92f9e9c", 2.83, 11_572),
    ),
    _voicebank(
        "dec213d3-bf57-4777-9663-c24bdce92d5e",
        *("clean_testset_wav", "34eb1c0ba7ef667e9b966866c542fc16", 0.15, 824),
    ),
    _voicebank(
        "13c1bfbf-14a6-41db-9b41-8f7310f01ad5",
        *("noisy_testset_wav", "fb1b86caa31e8ba5b506c0c64da9aab5", 0.17, 824),
    ),
)
_MUSAN = Archive(f"{_OPENSLR}/17/musan.tar.gz", "md5:0c472d4fc0c5141eca47ad1ffeb2a7df", 11.09, 12.5, "musan", 2_016)
_RIRS = Archive(
    f"{_OPENSLR}/28/rirs_noises.zip", "md5:e6f48e257286e05de56413b4779d8ffb", 1.31, 6.0, "RIRS_NOISES", 60_000
)
# One commit, so that the content does not change; GitHub makes the archive anew, and its checksum with it.
_ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"
_ESC50 = Archive(
    f"https://github.com/karolpiczak/ESC-50/archive/{_ESC50_COMMIT}.zip",
    *("", 0.65, 0.9, f"ESC-50-{_ESC50_COMMIT}", 2_000),
    file="ESC-50.zip",
)

#: Code of a task, or name of a corpus of noise or rooms, to what is fetched for it.
OFFERS: Mapping[str, Offer] = {
    "KS": Offer((SPEECH_COMMANDS,), _KEYWORDS),
    "ASR": Offer((LIBRISPEECH,), _SPEECH),
    "ASR-LM": Offer((LIBRISPEECH, LIBRISPEECH_LM), (*_SPEECH, _LM)),
    "PR": Offer((LIBRISPEECH, LIBRISPEECH_LEXICA), (*_SPEECH, *_LEXICA)),
    "SE": Offer((VOICEBANK_DEMAND,), _NOISY),
    "SE2": Offer((VOICEBANK_DEMAND,), _NOISY),
    "musan": Offer((MUSAN,), (_MUSAN,)),
    "rirs_noises": Offer((RIRS_NOISES,), (_RIRS,)),
    "esc-50": Offer((ESC50,), (_ESC50,)),
}
#: Corpora of noise and rooms among them.
BACKGROUNDS = ("musan", "rirs_noises", "esc-50")


def offer_of(name: str) -> Offer:
    """What is fetched for a task or a corpus.

    Raises:
        PrepareError: its terms do not let a command fetch it (the sentence says where it can be had), or it is unknown.
    """
    if name in OFFERS:
        return OFFERS[name]
    if name not in tasks.TASKS:
        raise PrepareError(f"nothing to fetch is called {name!r}{did_you_mean(name, OFFERS)}")
    corpora = tasks.TASKS[name].corpora
    where = "; ".join(f"{corpus.name} is at {corpus.source} ({corpus.terms})" for corpus in corpora)
    fix = "get it there, and type the same without --download"
    raise PrepareError(f"the data of {name} cannot be fetched by a command: {where}; {fix}")
