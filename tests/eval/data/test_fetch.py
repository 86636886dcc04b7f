"""`prepare --download` against a local server: resumed, checked, unpacked safely; what is there stays."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import hashlib
import io
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustdistiller.acoustics.corpora import detect_layout
from robustdistiller.cli.main import app
from robustdistiller.common import download
from robustdistiller.common.locks import locked
from robustdistiller.eval import tasks
from robustdistiller.eval.data import fetch
from robustdistiller.eval.data.archives import ARCHIVES, BACKGROUNDS, archives_of
from tests.language_model import asr_language_model
from tests.web import Server

from .downloads import audio, text, voicebank

pytestmark = pytest.mark.usefixtures("bridge")

#: What can be fetched, by the name that is typed, to the corpora it is made of.
OFFERS = {
    **{code: task.corpora for code, task in tasks.TASKS.items() if archives_of(task.corpora)},
    **{name: (corpus,) for name, corpus in BACKGROUNDS.items()},
}
PUBLISHED = dict(ARCHIVES)


@pytest.fixture
def web(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    server = Server()
    yield server
    server.close()


def tar(folder: Path, *inside: str) -> bytes:
    """Some things of a folder, as paths relative to it that begin with ``./``, as Speech Commands'."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in inside:
            archive.add(folder / name, f"./{name}")
    return content.getvalue()


def packed(folder: Path, *inside: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in inside:
            for path in sorted((folder / name).rglob("*")):
                archive.write(path, path.relative_to(folder))
    return content.getvalue()


@pytest.fixture
def publish(web, monkeypatch):
    """Serve small archives by their names, and expect their checksums and sizes."""

    def call(code: str, contents: dict[str, bytes]) -> None:
        web.files |= {f"/{name}": content for name, content in contents.items()}
        for corpus in OFFERS[code]:
            small = [
                dataclasses.replace(
                    one,
                    checksum=one.checksum and f"md5:{hashlib.md5(contents[one.name]).hexdigest()}",
                    size_gb=one.size_gb / 1000,
                    unpacked_gb=one.unpacked_gb / 1000,
                )
                for one in PUBLISHED[corpus.name]
            ]
            monkeypatch.setitem(ARCHIVES, corpus.name, tuple(small))

    return call


@pytest.fixture
def prepare(web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(code: str, root: str | Path, *more: str):
        arguments = ["prepare", code, str(root), "--download", "--mirror", web.url, *more]
        return CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})

    return call


@pytest.fixture
def keywords(toy_corpora, publish, tmp_path) -> dict[str, bytes]:
    """Speech Commands, whose archives hold no folder of their own."""
    source = tmp_path / "source"
    toy_corpora.build("KS", source)
    contents = {
        "speech_commands_v0.01.tar.gz": tar(source / "train", "."),
        "speech_commands_test_set_v0.01.tar.gz": tar(source / "test", "."),
    }
    publish("KS", contents)
    return contents


def left(folder: Path) -> list[str]:
    """What lies in a folder beside unpacked corpora."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != fetch.LOCK)


def test_fetched_told_and_ready(keywords, prepare, web, tmp_path) -> None:
    result = prepare("KS", tmp_path / "data")
    assert result.exit_code == 0, result.output
    told = result.output.index("Speech Commands v0.01: CC BY 4.0; download.tensorflow.org/data")
    assert told < result.output.index("Fetched: speech_commands_v0.01.tar.gz, speech_commands_test_set_v0.01.tar.gz")
    assert "speech_commands_test_set_v0.01.tar.gz, about 0.00 GB (size only: no checksum is published)" in result.output
    assert f"speech_commands_test_root='{tmp_path}/data/speech_commands_test_set_v0.01'" in result.output
    assert left(tmp_path / "data") == [fetch.NOTE]
    again = prepare("KS", tmp_path / "data")
    assert again.exit_code == 0 and "Fetched: nothing, all was there" in again.output and len(web.asked) == 2


def test_librispeech_in_the_folder_that_is_called_so(toy_corpora, publish, prepare, tmp_path) -> None:
    toy_corpora.librispeech(tmp_path / "source" / "LibriSpeech")
    contents = {}
    for part in ("train-clean-100", "dev-clean", "test-clean"):
        text(tmp_path / "source" / "LibriSpeech" / "README.TXT", f"as of {part}")  # each archive has its own
        contents[f"{part}.tar.gz"] = tar(tmp_path / "source", "LibriSpeech/README.TXT", f"LibriSpeech/{part}")
    publish("ASR", contents)
    result = prepare("ASR", "data/LibriSpeech")
    assert result.exit_code == 0, result.output
    assert f"libri_root='{tmp_path}/data/LibriSpeech'" in result.output
    assert not (tmp_path / "data" / "LibriSpeech" / "LibriSpeech").exists()


def test_a_language_model_and_lexica_are_found_beside_the_corpus(toy_corpora, publish, prepare, tmp_path) -> None:
    toy_corpora.librispeech(tmp_path / "LibriSpeech")
    model = asr_language_model(tmp_path) and (tmp_path / "2-gram.arpa").read_bytes()
    parts = {
        f"{part}.tar.gz": tar(tmp_path, f"LibriSpeech/{part}")
        for part in ("train-clean-100", "dev-clean", "test-clean")
    }
    publish("ASR-LM", {**parts, "4-gram.arpa.gz": gzip.compress(model)})
    result = prepare("ASR-LM", tmp_path / "data")
    assert result.exit_code == 0, result.output
    assert f"kenlm_model='{tmp_path}/data/4-gram.arpa.gz'" in result.output
    lexica = [f"librispeech-lexicon-{part}-g2p.txt" for part in ("200k", "allothers")]
    toy_corpora.build("PR", tmp_path / "PR")
    words = {name: (tmp_path / "PR" / f"lexicon-{n}.txt").read_bytes() for n, name in enumerate(lexica, start=1)}
    parts = {name: tar(tmp_path / "PR", f"LibriSpeech/{name.removesuffix('.tar.gz')}") for name in parts}
    publish("PR", {**parts, **words})
    result = prepare("PR", tmp_path / "phonemes" / "LibriSpeech")
    assert result.exit_code == 0, result.output
    assert all(f"'{tmp_path}/phonemes/{name}'" in result.output for name in lexica)


def test_voicebank(publish, prepare, tmp_path) -> None:
    root = voicebank(tmp_path / "source", 48000)
    publish("SE", {one.name: packed(root, one.folder) for one in archives_of(OFFERS["SE"])})
    result = prepare("SE", tmp_path / "vb")
    assert result.exit_code == 0, result.output
    assert re.search(r"Made: wav16k/noisy_trainset_28spk_wav, ", result.output)


@pytest.mark.parametrize("name", ["musan", "RIRS_NOISES", "esc-50"])
def test_noise_and_rooms(name, publish, prepare, tmp_path) -> None:
    source, code = tmp_path / "source", name.lower()
    for kind in ("noise", "music", "speech"):
        audio(source / "musan" / kind / "free" / f"{kind}-0001.wav")
    audio(source / "RIRS_NOISES" / "simulated_rirs" / "smallroom" / "Room001" / "Room001-00001.wav")
    (archive,) = archives_of(OFFERS[code])
    esc = source / archive.folder if code == "esc-50" else source / "esc"
    audio(esc / "audio" / "1-100032-A-0.wav")
    text(esc / "meta" / "esc50.csv", "filename,fold,category", "1-100032-A-0.wav,1,dog")
    publish(code, {archive.name: (packed if archive.name.endswith(".zip") else tar)(source, archive.folder)})
    result = prepare(name, tmp_path / "noise")
    assert result.exit_code == 0, result.output
    assert OFFERS[code][0].terms in result.output and "robustdistiller data" in result.output
    kind = {"musan": "musan", "rirs_noises": "openslr28", "esc-50": "esc50"}[code]
    assert detect_layout(tmp_path / "noise" / archive.folder) == kind


# Connections


def test_a_download_that_broke_is_taken_up_by_the_next_command(keywords, prepare, web, tmp_path) -> None:
    size = len(keywords["speech_commands_v0.01.tar.gz"])
    web.cuts = [1000, 1000, *[0] * 9]  # the first two attempts get somewhere
    result = prepare("KS", tmp_path / "data")
    assert result.exit_code == 1 and "Traceback" not in result.output
    sentence = f"{web.url}/speech_commands_v0.01.tar.gz could not be fetched: the connection ended after 2000 of {size}"
    assert sentence in result.stderr and "the same command goes on from there" in result.stderr
    part = tmp_path / "data" / ".speech_commands_v0.01.tar.gz.part"
    assert part.read_bytes() == keywords["speech_commands_v0.01.tar.gz"][:2000]
    web.cuts, web.asked[:] = [], []
    assert prepare("KS", tmp_path / "data").exit_code == 0
    assert [asked for _, _, asked in web.asked] == ["bytes=2000-", None] and not part.exists()


@pytest.mark.parametrize("changed", [False, True])
def test_a_server_that_gives_no_parts_or_another_file_meanwhile(changed, keywords, prepare, web, tmp_path) -> None:
    name = "speech_commands_test_set_v0.01.tar.gz"
    web.gives_parts, web.statuses = changed, [503]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f".{name}.part").write_bytes(b"of another version")
    (tmp_path / "data" / f".{name}.part.version").write_text('"older"')
    assert prepare("KS", tmp_path / "data").exit_code == 0
    assert ("GET", f"/{name}", "bytes=18-") in web.asked


def test_killed_between_downloading_and_unpacking(keywords, prepare, web, tmp_path, monkeypatch) -> None:
    def killed(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "unpack", killed)
        assert prepare("KS", tmp_path / "data").exit_code == 130
    assert not (tmp_path / "data" / "speech_commands_v0.01").exists()
    sent, stock = [], web.send

    def send(request, status, content, *more) -> None:
        sent.append(len(content))
        stock(request, status, content, *more)

    monkeypatch.setattr(web, "send", send)
    assert prepare("KS", tmp_path / "data").exit_code == 0
    assert sent == [0, len(keywords["speech_commands_test_set_v0.01.tar.gz"])], "nothing is sent twice"


def test_what_is_not_there(keywords, prepare, web, tmp_path) -> None:
    del web.files["/speech_commands_test_set_v0.01.tar.gz"]
    result = prepare("KS", tmp_path / "data")
    assert (
        result.exit_code == 1
        and "_test_set_v0.01.tar.gz could not be fetched: the server answered 404" in result.stderr
    )
    assert (tmp_path / "data" / "speech_commands_v0.01" / "yes").is_dir(), "the other is there for the next time"
    result = prepare("KS", tmp_path / "data", "--mirror", "nonsense")
    assert result.exit_code == 2 and "unknown url type: 'nonsense/speech_commands" in result.stderr


def test_two_at_once(keywords, prepare, web, tmp_path) -> None:
    with locked(tmp_path / "data" / fetch.LOCK):
        result = prepare("KS", tmp_path / "data")
    assert result.exit_code == 2 and "another process is fetching into" in result.stderr and not web.asked


# What is published


def test_a_wrong_checksum(keywords, prepare, web, tmp_path) -> None:
    content = bytearray(web.files["/speech_commands_v0.01.tar.gz"])
    content[len(content) // 2] ^= 1
    web.files["/speech_commands_v0.01.tar.gz"] = bytes(content)
    result = prepare("KS", tmp_path / "data")
    assert result.exit_code == 1
    assert re.search(
        r"speech_commands_v0.01.tar.gz was fetched and removed again: its MD5 is \w{32}, expected", result.stderr
    )
    assert left(tmp_path / "data") == [] and not (tmp_path / "data" / "speech_commands_v0.01").exists()


def test_without_a_checksum_the_archive_is_proved_by_its_own(keywords, prepare, web, tmp_path) -> None:
    content = bytearray(web.files["/speech_commands_test_set_v0.01.tar.gz"])
    content[len(content) // 2] ^= 1
    web.files["/speech_commands_test_set_v0.01.tar.gz"] = bytes(content)
    result = prepare("KS", tmp_path / "data")
    assert result.exit_code == 1 and "was fetched and removed again: it is damaged, or no archive (" in result.stderr
    assert not (tmp_path / "data" / "speech_commands_test_set_v0.01").exists()


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "link"])
def test_a_hostile_archive(name, publish, prepare, tmp_path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = (tarfile.SYMTYPE, "/etc") if name == "link" else (tarfile.REGTYPE, "")
        archive.addfile(info)
    publish("musan", {"musan.tar.gz": content.getvalue()})
    result = prepare("musan", tmp_path / "data")
    assert result.exit_code == 1 and f"it holds '{name}', " in result.stderr
    assert left(tmp_path / "data") == [] and not list(tmp_path.rglob("escaped"))


def test_another_archive_than_expected(publish, prepare, tmp_path) -> None:
    audio(tmp_path / "source" / "other" / "a.wav")
    publish("musan", {"musan.tar.gz": tar(tmp_path / "source", "other")})
    result = prepare("musan", tmp_path / "data")
    assert result.exit_code == 1 and "it holds no folder musan" in result.stderr
    assert not (tmp_path / "data" / "other").exists()


@pytest.mark.parametrize("offer", OFFERS)
def test_what_is_known_of_the_archives(offer) -> None:
    for archive in archives_of(OFFERS[offer]):
        assert archive.url.startswith("https://")
        assert re.fullmatch(r"(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})?", archive.checksum)
        assert archive.unpacked_gb >= archive.size_gb if archive.folder else archive.unpacked_gb == 0
    assert all(corpus.terms and corpus.source for corpus in OFFERS[offer])


@pytest.mark.parametrize("code", [code for code in tasks.TASKS if code not in OFFERS])
def test_what_has_terms_to_agree_to_is_not_fetched(code, prepare, web, tmp_path) -> None:
    result = prepare(code, tmp_path / "data")
    assert result.exit_code == 2 and f"the data of {code} cannot be fetched by a command: " in result.stderr
    for corpus in tasks.get(code).corpora:
        assert f"{corpus.name} is at {corpus.source} ({corpus.terms})" in result.stderr
    assert not web.asked and not (tmp_path / "data").exists()


# The disk


def test_space_is_asked_for_first(prepare, web, tmp_path, monkeypatch) -> None:
    (tmp_path / "data").mkdir()
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000_000)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage)
    result = prepare("KS", tmp_path / "data")
    assert result.exit_code == 2 and not web.asked
    assert "has 3.0 GB of space, and about 3.9 GB are needed for speech_commands_v0.01.tar.gz, " in result.stderr


@pytest.mark.parametrize("full", ["download", "unpack"])
def test_a_disk_that_gets_full(full, keywords, prepare, web, tmp_path, monkeypatch) -> None:
    module = download.tqdm if full == "download" else __import__("robustdistiller.common.unpack", fromlist=["x"]).tqdm
    stock = module.update

    def no_space(bar, *n) -> None:
        stock(bar, *n)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "update", no_space)
        result = prepare("KS", tmp_path / "data")
    assert result.exit_code == 1 and f"the disk of {tmp_path}/data is full; free some space" in result.stderr
    assert ".speech_commands_v0.01.tar.gz.part" in left(tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir() if path.is_dir()] == []
    assert prepare("KS", tmp_path / "data").exit_code == 0


def test_what_is_there_is_neither_replaced_nor_removed(keywords, prepare, web, tmp_path) -> None:
    data = tmp_path / "data"
    mine = [text(data / "speech_commands_v0.01" / "notes.txt", "mine"), text(data / "yes" / "a.txt", "mine")]
    mine.append(text(data / "speech_commands_v0.01.tar.gz.part", "mine"))  # as of a browser
    by_hand = data / "speech_commands_test_set_v0.01.tar.gz"
    by_hand.write_bytes(keywords[by_hand.name])
    shutil.copytree(tmp_path / "source" / "train" / "yes", data / "speech_commands_v0.01" / "yes")
    changed = min((data / "speech_commands_v0.01" / "yes").iterdir())
    before = changed.read_bytes()
    changed.write_bytes(b"mine")
    result = prepare("KS", data)
    assert result.exit_code == 2
    assert (
        f"speech_commands_v0.01/yes/{changed.name} in {data} differ from those of speech_commands_v0.01"
        in result.stderr
    )
    assert changed.read_bytes() == b"mine" and not (data / "speech_commands_v0.01" / "no").exists()
    changed.write_bytes(before)
    assert prepare("KS", data).exit_code == 0
    assert all(file.read_text() == "mine\n" for file in mine) and by_hand.is_file()
    assert [path for _, path, _ in web.asked if "test_set" in path] == [], (
        "the archive that was fetched by hand is used"
    )


def test_somebody_elses_archive(keywords, prepare, tmp_path) -> None:
    mine = tmp_path / "data" / "speech_commands_v0.01.tar.gz"
    mine.parent.mkdir()
    mine.write_bytes(b"half of it")
    result = prepare("KS", tmp_path / "data")
    assert result.exit_code == 2 and f"{mine} is not the published one: its MD5 is" in result.stderr
    assert mine.read_bytes() == b"half of it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["KS", "--download"], "--download needs ROOT, the folder that Speech Commands v0.01 is fetched to"),
        (["KS", "x", "--download", "--check"], "--download writes files, and --check does not"),
        (["musan", "x"], "musan is fetched, not prepared; type the same with --download"),
        (["KS", "x", "--mirror", "http://x"], "--mirror is for what is fetched; type the same with --download"),
        (["muscan", "x", "--download"], "unknown task 'muscan'"),
    ],
)
def test_wrong_commands_are_one_sentence(arguments, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["prepare", *arguments])
    assert result.exit_code == 2 and message in result.stderr and not list(tmp_path.iterdir())
