"""Which recordings there are: audio files in folders, and lists of pieces of long recordings."""

import csv
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robustdistiller.common.files import walk_files
from robustdistiller.common.names import refuse_unknown

AUDIO_SUFFIXES = frozenset(
    f".{suffix}" for suffix in ("flac", "wav", "ogg", "oga", "opus", "mp3", "aif", "aiff", "au", "caf", "w64", "sph")
)

#: Audio that libsndfile does not read: worth a word where it was asked for by name or folder.
UNREADABLE_SUFFIXES = frozenset(f".{suffix}" for suffix in ("m4a", "aac", "wma", "mp4", "webm", "amr", "mka"))


@dataclass(frozen=True, slots=True)
class Piece:
    """One recording: a whole file, or a part of a longer one.

    Attributes:
        name: what the piece is called in records; the same on every machine.
        file: the file; a string costs less than a `Path`, which matters for some 100,000 of them.
        frame_offset: first sample, at the file's own rate.
        num_frames: number of samples at the file's own rate; None means to the end of the file.

    >>> Piece("rain", Path("noise.flac"), 16000, 8000).name
    'rain'
    """

    name: str
    file: str | Path
    frame_offset: int = 0
    num_frames: int | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.file)


def read_manifest(manifest: Path, where: dict[str, str]) -> list[Piece]:
    """The rows of a manifest as pieces; see :meth:`AudioSource.from_manifest`."""
    if not manifest.is_file():
        raise FileNotFoundError(f"manifest {manifest} does not exist")
    with manifest.open(newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        columns = table.fieldnames or []
        refuse_unknown(["offset_samples", "num_samples"], columns, "required column", str(manifest))
        refuse_unknown(where, columns, "column", str(manifest))
        pieces = []
        for number, row in enumerate(table, start=2):
            if any(row[column] != str(value) for column, value in where.items()):
                continue
            try:
                offset, length = int(row["offset_samples"]), int(row["num_samples"])
            except (TypeError, ValueError):
                raise ValueError(
                    f"{manifest}, line {number}: offset_samples and num_samples must be whole numbers, found {row}"
                ) from None
            file = _manifest_audio(manifest, row.get("file"))
            name = row.get("name") or row.get("utterance_id") or f"{file.name}@{offset}"
            pieces.append(Piece(name, file, offset, length))
    if not pieces:
        chosen = ", ".join(f"{column}={value}" for column, value in where.items())
        raise ValueError(f"{manifest} has no row with {chosen}" if where else f"{manifest} has no rows")
    return pieces


def _manifest_audio(manifest: Path, file: str | None) -> Path:
    if file:
        candidates = [manifest.parent / file, manifest.with_suffix("") / file]
    else:
        candidates = [manifest.with_suffix(suffix) for suffix in sorted(AUDIO_SUFFIXES)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"audio of {manifest} not found: looked for {', '.join(str(c) for c in candidates[:3])}")


def list_pieces(path: Path) -> list[Piece]:
    """What a folder, an audio file or a ``.tsv`` manifest holds; see :meth:`AudioSource.from_path`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "rain.wav").touch()
    ...     [piece.name for piece in list_pieces(Path(folder))]
    ['rain.wav']
    """
    if path.is_dir():
        files = sorted(walk_audio(path))
        if not files:
            raise FileNotFoundError(
                f"no audio files in {path} (searched to any depth for {', '.join(sorted(AUDIO_SUFFIXES))})"
            )
        return [Piece(name, f"{path}/{name}") for name in files]
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a folder of audio, an audio file or a .tsv manifest")
    return read_manifest(path, {}) if path.suffix == ".tsv" else [Piece(path.name, path)]


def joined_pieces(roots: Sequence[tuple[str | Path, list[Piece]]]) -> list[Piece]:
    """The recordings of several roots; those of more than one are named relative to the folder that all lie in.

    Args:
        roots: a folder, file or manifest and what it holds, each.
    """
    if len(roots) == 1:
        return roots[0][1]
    common = os.path.commonpath([Path(root).absolute().parent for root, _ in roots]) if roots else ""
    joined = []
    for root, pieces in roots:
        prefix = Path(root).absolute().relative_to(common).as_posix()
        for piece in pieces:
            joined.append(replace(piece, name=prefix if piece.path == Path(root) else f"{prefix}/{piece.name}"))
    return joined


def name_recordings(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Audio files by a name for each: its path below the folder that was given, without suffix.

    Recordings that differ in their suffix only keep it in their name. With several paths the names of a folder's
    files begin with the folder's name. Audio of kinds that cannot be read is among them.

    Raises:
        FileNotFoundError: a path is not there, or a folder holds no audio at any depth.
        ValueError: two folders of the same name hold recordings of the same name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.wav", "b.wav", "b.flac", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     list(name_recordings([folder]))
    ['a', 'b.flac', 'b.wav']
    """
    paths = list(dict.fromkeys(Path(path).expanduser() for path in paths))
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            files = sorted(map(Path, walk_audio(path, AUDIO_SUFFIXES | UNREADABLE_SUFFIXES)))
            if not files:
                suffixes = ", ".join(sorted(AUDIO_SUFFIXES))
                raise FileNotFoundError(f"no audio files in {path}; searched to any depth for {suffixes}")
            prefix = Path(path.resolve().name) if len(paths) > 1 else Path()
            found += [(prefix / file, path / file) for file in files]
        elif path.exists():
            found.append((Path(path.name), path))
        else:
            raise FileNotFoundError(f"{path} does not exist; expected audio files, or folders of them")
    counts = Counter(name.with_suffix("") for name, _ in found)
    names: dict[str, Path] = {}
    for name, file in found:
        stem = name.with_suffix("")
        key = (stem if counts[stem] == 1 else name).as_posix()
        if key in names:
            raise ValueError(f"{names[key]} and {file} would both be called {key}; take one folder at a time")
        names[key] = file
    return names


def walk_audio(root: str | Path, suffixes: Container[str] = AUDIO_SUFFIXES) -> Iterator[str]:
    """The audio files below a folder, see :func:`~robustdistiller.common.files.walk_files`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "a").mkdir()
    ...     Path(folder, "a", "rain.wav").touch()
    ...     list(walk_audio(folder))
    ['a/rain.wav']
    """
    return (file for file in walk_files(root) if file[file.rfind(".") :].lower() in suffixes)
