"""Files that a command may fetch, with what is published of their sizes and checksums; corpora of noise and rooms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robustdistiller.common.download import file_name
from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.corpora import Corpus

_OPENSLR = "https://www.openslr.org/resources"
_TENSORFLOW = "https://storage.googleapis.com/download.tensorflow.org/data"
_DATASHARE = "https://datashare.ed.ac.uk/bitstreams"
LANGUAGE_MODEL = "4-gram.arpa.gz"
# One commit, so that the content does not change; GitHub makes the archive anew, and its checksum with it.
_ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"

#: Corpora of noise and rooms, for conditions and for training.
BACKGROUNDS = {
    "musan": Corpus("MUSAN", "openslr.org/17", "CC BY 4.0"),
    "rirs_noises": Corpus("RIRS_NOISES", "openslr.org/28", "Apache 2.0"),
    "esc-50": Corpus("ESC-50", "github.com/karolpiczak/ESC-50", "CC BY-NC 3.0"),
}


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


def _librispeech(part: str, md5: str, size_gb: float) -> Archive:
    """A part of LibriSpeech, with its MD5 as of openslr.org/resources/12/md5sum.txt."""
    url, files = f"{_OPENSLR}/12/{part}.tar.gz", corpora.LIBRISPEECH.counts[part]
    return Archive(url, f"md5:{md5}", size_gb, 1.02 * size_gb, f"LibriSpeech/{part}", files)


#: Part of DataShare's address, MD5 as it shows it, size and number of files of each part of VoiceBank-DEMAND. The older
#: addresses, below bitstream/handle/10283/2791, no longer give the files.
_VOICEBANK = {
    "clean_trainset_28spk": ("245452b6-6235-44b6-a6f9-e7eb19797769", "d2d5a45ec32f8fcbf201bde0447e20ba", 2.49, 11_572),
    "noisy_trainset_28spk": ("ecb5a102-bb00-46d3-8af5-40c79823b837", "1fca9e8bafb8cd069f6653c6d92f9e9c", 2.83, 11_572),
    "clean_testset": ("dec213d3-bf57-4777-9663-c24bdce92d5e", "34eb1c0ba7ef667e9b966866c542fc16", 0.15, 824),
    "noisy_testset": ("13c1bfbf-14a6-41db-9b41-8f7310f01ad5", "fb1b86caa31e8ba5b506c0c64da9aab5", 0.17, 824),
}


def _voicebank(name: str, item: str, md5: str, size_gb: float, files: int) -> Archive:
    url, folder = f"{_DATASHARE}/{item}/download", f"{name}_wav"
    return Archive(url, f"md5:{md5}", size_gb, 1.3 * size_gb, folder, files, file=f"{folder}.zip")


#: Name of a corpus to its files; the others have terms that do not let a command fetch them.
ARCHIVES: dict[str, tuple[Archive, ...]] = {
    corpora.LIBRISPEECH.name: (
        _librispeech("train-clean-100", "2a93770f6d5c6c964bc36631d331a522", 6.39),
        _librispeech("dev-clean", "42e2234ba48799c1f50f24a7926300a1", 0.34),
        _librispeech("test-clean", "32fa31d27d2e1cad72775fee3f4849a9", 0.35),
    ),
    corpora.LIBRISPEECH_LM.name: (Archive(f"{_OPENSLR}/11/{LANGUAGE_MODEL}", size_gb=1.4),),
    corpora.LIBRISPEECH_LEXICA.name: tuple(
        Archive(f"https://huggingface.co/datasets/s3prl/g2p/raw/main/lexicon/{name}", size_gb=0.02)
        for name in ("librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")
    ),
    corpora.SPEECH_COMMANDS.name: (
        Archive(
            f"{_TENSORFLOW}/speech_commands_v0.01.tar.gz",
            checksum="sha256:743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",  # as torchaudio has it
            size_gb=1.49,
            unpacked_gb=2.2,
            folder="speech_commands_v0.01",
            files=corpora.SPEECH_COMMANDS.counts["words"],
            bare=True,
        ),
        Archive(
            f"{_TENSORFLOW}/speech_commands_test_set_v0.01.tar.gz",
            size_gb=0.11,
            unpacked_gb=0.2,
            folder="speech_commands_test_set_v0.01",
            files=corpora.SPEECH_COMMANDS.counts["test"],
            bare=True,
        ),
    ),
    corpora.VOICEBANK_DEMAND.name: tuple(_voicebank(name, *facts) for name, facts in _VOICEBANK.items()),
    "MUSAN": (
        Archive(
            f"{_OPENSLR}/17/musan.tar.gz",
            checksum="md5:0c472d4fc0c5141eca47ad1ffeb2a7df",
            size_gb=11.09,
            unpacked_gb=12.5,
            folder="musan",
            files=2_016,
        ),
    ),
    "RIRS_NOISES": (
        Archive(
            f"{_OPENSLR}/28/rirs_noises.zip",
            checksum="md5:e6f48e257286e05de56413b4779d8ffb",
            size_gb=1.31,
            unpacked_gb=6.0,
            folder="RIRS_NOISES",
            files=60_000,
        ),
    ),
    "ESC-50": (
        Archive(
            f"https://github.com/karolpiczak/ESC-50/archive/{_ESC50_COMMIT}.zip",
            size_gb=0.65,
            unpacked_gb=0.9,
            folder=f"ESC-50-{_ESC50_COMMIT}",
            files=2_000,
            file="ESC-50.zip",
        ),
    ),
}


def archives_of(wanted: Iterable[Corpus]) -> list[Archive]:
    """The files of some corpora; none where one of them cannot be fetched by a command."""
    wanted = list(wanted)
    fetched = all(corpus.name in ARCHIVES for corpus in wanted)
    return [archive for corpus in wanted if fetched for archive in ARCHIVES[corpus.name]]
