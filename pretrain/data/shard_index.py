"""Lists what is in shards of speech, once: lhotse Shar folders and WebDataset tar files."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from lhotse import Recording
from lhotse.audio import AudioSource as RecordingFile
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item, load_jsonl
from lhotse.utils import fastcopy

from robustdistiller.acoustics.audio.listing import AUDIO_SUFFIXES, walk_audio
from robustdistiller.common.files import write_atomically, write_text
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.data.cuts import LengthRule, at_16_khz, id_digest
from robustdistiller.pretrain.data.headers import UNREADABLE_SHARE, read_list
from robustdistiller.pretrain.data.shards import PLACE, ShardedSpeech


@dataclass(frozen=True)
class Shard:
    """A tar file of audio; `cuts` is the manifest beside it in lhotse's Shar format, `None` in WebDataset's."""

    tar: Path
    cuts: Path | None = None


def find_shards(root: str | Path) -> list[Shard] | None:
    """The shards that a data root consists of; `None` if it is something else.

    A folder with `cuts.*.jsonl.gz` and `recording.*.tar` is lhotse's Shar (`shar:FOLDER` says so explicitly). A `.tar`
    file, or a folder with such files at its top and no audio files beside them, is WebDataset.

    Raises:
        SettingsError: a Shar folder is named that is none, or its manifests and tar files do not pair.
    """
    named = str(root).startswith("shar:")
    path = Path(str(root).removeprefix("shar:")).expanduser()
    if path.suffix == ".tar" and path.is_file() and not named:
        return [Shard(path)]
    cuts = sorted((*path.glob("cuts.*jsonl"), *path.glob("cuts.*jsonl.gz")))
    tars = sorted(path.glob("recording.*tar"))
    if named or (cuts and tars):
        if not cuts or [_number(one) for one in cuts] != [_number(one) for one in tars]:
            raise SettingsError(
                f"data.speech: {path} is no whole Shar folder: expected a recording.NUMBER.tar for each "
                f"cuts.NUMBER.jsonl.gz, found {len(tars)} and {len(cuts)}"
            )
        return [Shard(tar, manifest) for tar, manifest in zip(tars, cuts)]
    tars = sorted(path.glob("*.tar"))
    # An unpacked corpus may have its archive beside it.
    return [Shard(tar) for tar in tars] if tars and not any(walk_audio(path)) else None


def index_shards(shards: Sequence[Shard], name: str, folder: Path, rule: LengthRule) -> tuple[ShardedSpeech, list[str]]:
    """Index the shards of a root that are new or have changed (name, size or time), and open all indexes.

    Cuts from WebDataset are called after the root, the shard and the member.

    Returns:
        The speech, and what of it cannot be used, with the reasons.

    Raises:
        SettingsError: a shard cannot be read, or holds too much that cannot be; the shard is named.
    """
    with ThreadPoolExecutor(8) as pool:
        notes = list(pool.map(lambda shard: _index(shard, name, folder), shards))
    lengths = np.concatenate([np.array(note["num_samples"], np.int32) for note in notes])
    left_out = rule.left_out(lengths) + [reason for note in notes for reason in note["left_out"]]
    digest = hashlib.sha256("\n".join(note["digest"] for note in notes).encode()).hexdigest()
    indexes = tuple(_index_path(shard, folder) for shard in shards)
    return ShardedSpeech(indexes, rule.lengths(lengths), digest, rule), left_out


def _number(path: Path) -> str:
    return path.name.split(".")[1]


def _index_path(shard: Shard, folder: Path) -> Path:
    return folder / f"{shard.tar.stem}.jsonl.gz"


def _index(shard: Shard, name: str, folder: Path) -> dict:
    path = _index_path(shard, folder)
    notes = path.with_suffix(".json")
    files = [file.stat() for file in (shard.tar, shard.cuts) if file]
    facts = (name, str(shard.tar.resolve()), [(stat.st_size, stat.st_mtime_ns) for stat in files])
    fingerprint = hashlib.sha256(repr(facts).encode()).hexdigest()
    known = read_list(notes) if path.is_file() else {}
    if known.get("fingerprint") == fingerprint:
        return known
    try:
        with tarfile.open(shard.tar, "r:") as tar:
            results = list(_webdataset_cuts(tar, name) if shard.cuts is None else _shar_cuts(tar, shard))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SettingsError(
            f"data.speech: {shard.tar} cannot be read as an uncompressed tar file: {error}; unpack or write it again"
        ) from error
    cuts = [at_16_khz(result) for result in results if not isinstance(result, str)]
    left_out = [f"{shard.tar.name}: {result}" for result in results if isinstance(result, str)]
    if not cuts or len(left_out) > max(UNREADABLE_SHARE * len(results), 1):
        raise SettingsError(
            f"data.speech: {len(left_out)} of {len(results)} recordings in {shard.tar} cannot be used"
            + (f"; first: {left_out[0]}" if left_out else _NO_AUDIO)
        )
    write_atomically(path, lambda file: _write_lines(cuts, file))
    known = {
        "fingerprint": fingerprint,
        "digest": id_digest(cuts),
        "num_samples": [cut.num_samples for cut in cuts],
        "left_out": left_out,
    }
    write_text(notes, json.dumps(known))
    return known


_NO_AUDIO = (
    ": expected audio files in it. What lhotse's export_to_webdataset writes are pickled objects, which are not "
    "opened: use CutSet.to_shar, or pack the audio files themselves"
)


def _webdataset_cuts(tar: tarfile.TarFile, name: str) -> Iterator[Cut | str]:
    """One cut for each audio file; of those, only headers are read."""
    shard = Path(tar.name).name
    prefix = name if name == shard else f"{name}/{shard}"
    for member in _members(tar):
        if not member.isfile() or Path(member.name).suffix.lower() not in AUDIO_SUFFIXES:
            continue
        try:
            header = soundfile.info(tar.extractfile(member))
        except (soundfile.SoundFileError, TypeError) as error:
            yield f"{member.name} cannot be read as audio ({error})"
            continue
        if header.frames <= 0:
            yield f"{member.name} holds no audio samples"
            continue
        duration_s = header.frames / header.samplerate
        channels = list(range(header.channels))
        recording = Recording(f"{prefix}/{member.name}", [], header.samplerate, header.frames, duration_s, channels)
        yield _placed(fastcopy(recording.to_cut(), id=recording.id), recording, tar, member)


def _shar_cuts(tar: tarfile.TarFile, shard: Shard) -> Iterator[Cut | str]:
    """The cuts of the manifest, with the recordings that follow each other in the tar file as data, metadata."""
    members = _members(tar)
    for line in load_jsonl(shard.cuts):
        cut = deserialize_item(line)
        data, facts = next(members, None), next(members, None)
        found = data and str(Path(data.name).parent / Path(data.name).stem)
        if facts is None or found != cut.id:
            raise SettingsError(
                f"data.speech: {shard.tar} does not belong to {shard.cuts}: for {cut.id} it holds {found or 'nothing'}"
            )
        if Path(facts.name).suffix == ".nometa":
            yield f"{cut.id} has no recording"
            continue
        recording = deserialize_item(json.loads(tar.extractfile(facts).read()))
        yield _placed(cut, recording, tar, data)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    size = Path(tar.name).stat().st_size
    for member in tar:
        if member.offset_data + member.size > size:
            raise tarfile.ReadError(f"it ends in the middle of {member.name}")
        yield member


def _placed(cut: Cut, recording: Recording, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Cut:
    place = {"tar": str(Path(tar.name).resolve()), "offset": member.offset_data, "num_bytes": member.size}
    placeholder = RecordingFile("shar", recording.channel_ids, "")
    custom = {**(cut.custom or {}), PLACE: place}
    return fastcopy(cut, recording=fastcopy(recording, sources=[placeholder]), custom=custom)


def _write_lines(cuts: Sequence[Cut], file: Path) -> None:
    with gzip.open(file, "wt", compresslevel=3, encoding="utf-8") as lines:
        lines.writelines(json.dumps(cut.to_dict()) + "\n" for cut in cuts)
