"""How the corpora of noise and rooms are laid out as they are published, and what serves what purpose in them."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PURPOSES = ("noise", "rir", "speech")
DEMAND_TEST = ("DLIVING", "OOFFICE", "SCAFE", "SPSQUARE", "TBUS")
"""The environments that the test set of VoiceBank-DEMAND was mixed with (Valentini-Botinhao et al. 2016)."""


@dataclass(frozen=True)
class Item:
    """One recording of a corpus, as its layout tells.

    Attributes:
        name: path relative to the corpus, with forward slashes.
        labels: its classes, empty where the corpus has none.
        group: what must not be divided between parts: a room, an original recording, a session.
        split: ``train``, ``dev`` or ``test`` where the corpus says so; None leaves it to `corpora.split_of`.

    >>> Item("noise/rain.wav").group
    ''
    """

    name: str
    labels: tuple[str, ...] = ()
    group: str = ""
    split: str | None = None


_MUSAN_PARTS = {"music", "noise", "speech"}


def _musan(root: Path, names: list[str], purpose: str, split: str) -> list[Item]:
    # Files are called like their source and a number; of one original there is one file.
    first = ((name, name.split("/")[0]) for name in names)
    return [Item(name, (part,), group=Path(name).stem) for name, part in first if part in _MUSAN_PARTS]


_URBAN_CLASSES = (
    *("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling"),
    *("engine_idling", "gun_shot", "jackhammer", "siren", "street_music"),
)


def _urbansound8k(root: Path, names: list[str], purpose: str, split: str) -> list[Item]:
    items = []
    for name in names:  # audio/fold5/FREESOUNDID-CLASS-OCCURRENCE-SLICE.wav
        match = re.fullmatch(r"(?:.*/)?fold(\d+)/(\d+)-(\d)-\d+-\d+\.\w+", name)
        if match:
            split_name = {"10": "test", "9": "dev"}.get(match[1], "train")
            items.append(Item(name, (_URBAN_CLASSES[int(match[3])],), match[2], split_name))
    return items


def _esc50(root: Path, names: list[str], purpose: str, split: str) -> list[Item]:
    rows = {row["filename"]: row for row in _read_csv(root / "meta" / "esc50.csv", ("filename", "fold", "category"))}
    items = []
    for name in names:
        row = rows.get(Path(name).name)
        if row:
            part = {"5": "test", "4": "dev"}.get(row["fold"], "train")
            items.append(Item(name, (row["category"],), row.get("src_file") or name, part))
    return items


def _fsd50k(root: Path, names: list[str], purpose: str, split: str) -> list[Item]:
    rows: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {}
    for half in ("dev", "eval"):
        if not any(name.startswith(f"FSD50K.{half}_audio/") for name in names):
            continue
        for row in _read_csv(root / "FSD50K.ground_truth" / f"{half}.csv", ("fname", "labels")):
            part = "test" if half == "eval" else "dev" if row.get("split") == "val" else "train"
            rows[half, row["fname"]] = tuple(row["labels"].split(",")), part
    items = []
    for name in names:
        match = re.fullmatch(r"FSD50K\.(dev|eval)_audio/(\w+)\.\w+", name)
        if match and (match[1], match[2]) in rows:
            labels, part = rows[match[1], match[2]]
            items.append(Item(name, labels, match[2], part))
    return items


def _demand(root: Path, names: list[str], purpose: str, split: str) -> list[Item]:
    items = []
    for name in names:  # KITCHEN/ch01.wav ... ch16.wav: one place, sixteen microphones some centimetres apart
        folder, _, file = name.rpartition("/")
        if file.lower().startswith("ch01."):
            place = re.sub(r"_\d+k$", "", folder.split("/")[-1], flags=re.IGNORECASE)
            items.append(Item(name, (place,), place, "test" if place in DEMAND_TEST else "train"))
    return items


def _wham(root: Path, names: list[str], purpose: str, split: str) -> list[Item]:
    parts = {"tr": "train", "cv": "dev", "tt": "test"}
    return [Item(name, group=name, split=parts[name.split("/")[0]]) for name in names if name.split("/")[0] in parts]


def _chime(root: Path, names: list[str], purpose: str, split: str) -> list[Item]:
    first: dict[str, tuple[str, str]] = {}
    for name in sorted(names):  # BGD_150203_010_BUS.CH1.wav: date, number, environment, channel
        match = re.fullmatch(r"(?:.*/)?BGD_\w+?_([A-Z]+)(?:\.CH\d+)?\.\w+", name)
        if match:
            session = re.sub(r"\.CH\d+(?=\.\w+$)", "", name)
            first.setdefault(session, (name, match[1]))
    return [Item(name, (place,), Path(session).stem) for session, (name, place) in first.items()]


def _openslr28(root: Path, names: list[str], purpose: str, split: str) -> list[Item]:
    real_rooms, isotropic = _real_responses(root)
    items = []
    for name in names:
        parts = name.split("/")
        if any(part.startswith("simulated_rirs") for part in parts):
            item = Item(name, ("simulated",), "/".join(parts[-3:-1]))  # smallroom/Room001/Room001-00001.wav
        elif "pointsource_noises" in parts:
            item = Item(name, ("pointsource",), Path(name).stem)
        elif "real_rirs_isotropic_noises" in parts:
            stem = Path(name).stem
            noise = stem in isotropic or (not real_rooms and "_noise_" in stem)
            item = Item(name, ("isotropic" if noise else "real",), real_rooms.get(stem) or _room_of(stem))
        else:
            continue
        items.append(item)
    wanted = {"rir": ("simulated", "real"), "noise": ("pointsource", "isotropic")}.get(purpose, ())
    return [item for item in items if item.labels[0] in wanted]


def _real_responses(root: Path) -> tuple[dict[str, str], set[str]]:
    """File stems of the measured responses with their rooms, and of the isotropic noises, by the corpus's own lists."""
    rooms, noises = {}, set()
    for folder in (root / "real_rirs_isotropic_noises", root / "RIRS_NOISES" / "real_rirs_isotropic_noises"):
        for line in _lines(folder / "rir_list"):
            room = re.search(r"--room-id\s+(\S+)", line)
            rooms[Path(line.split()[-1]).stem] = room[1] if room else _room_of(Path(line.split()[-1]).stem)
        noises |= {Path(line.split()[-1]).stem for line in _lines(folder / "noise_list")}
    return rooms, noises


def _room_of(stem: str) -> str:
    """``RVB2014_type1_rir_largeroom1_far_angla`` is of ``RVB2014 largeroom1``."""
    match = re.match(r"(RVB2014|RWCP|air)_.*?_(?:rir|noise|binaural|phone)_(?:BT_)?([a-zA-Z]+\d*)", stem)
    return f"{match[1]} {match[2]}" if match else stem


def _dns(root: Path, names: list[str], purpose: str, split: str) -> list[Item]:
    """The challenge's archives: rooms are OpenSLR 26 and 28 beneath, noises lie in one flat folder."""
    if purpose != "rir":
        return [Item(name, group=Path(name).stem) for name in names if "noise" in name.split("/")[0] or "/" not in name]
    items = []
    found = [name for name in names if "SLR28" in name.split("/")]
    if found:
        above = found[0].split("/")[: found[0].split("/").index("SLR28") + 1]
        items = [
            Item(f"{'/'.join(above)}/{one.name}", (*one.labels, "SLR28"), one.group)
            for one in _openslr28(
                root.joinpath(*above),
                [name.split("/SLR28/")[-1].removeprefix("SLR28/") for name in found],
                purpose,
                split,
            )
        ]
    for name in names:
        if "SLR26" in name.split("/"):
            items.append(Item(name, ("simulated", "SLR26"), "/".join(name.split("/")[-3:-1])))
    return items


def _folder(root: Path, names: list[str], purpose: str, split: str) -> list[Item]:
    own = {name.split("/")[0] for name in names if "/" in name} & {"train", "dev", "test"}
    if own:  # the folder has parts of its own; what lies outside of them is for training, unless that is one of them
        outside = "none" if "train" in own else "train"
        parts = [name.split("/")[0] for name in names]
        return [Item(name, split=part if part in own else outside) for name, part in zip(names, parts)]
    # Responses of one room tend to lie in one folder.
    return [
        Item(name, group=str(Path(name).parent) if purpose == "rir" and "/" in name else Path(name).stem)
        for name in names
    ]


def _children(root: Path) -> set[str]:
    return {child.name for child in root.iterdir() if child.is_dir()}


@dataclass(frozen=True)
class Layout:
    """How a corpus is recognised and read.

    Attributes:
        is_here: whether a folder is this corpus.
        items: its recordings, given its folder, their names, the purpose and the part asked for.
        serves: the purposes that it has recordings for.
        default: labels that a purpose takes unless others are asked for.

    >>> LAYOUTS["wham"].default is None
    True
    """

    is_here: Callable[[Path], bool]
    items: Callable[[Path, list[str], str, str], list[Item]]
    serves: tuple[str, ...] = ("noise",)
    default: Callable[[str], tuple[str, ...]] | None = None


LAYOUTS: dict[str, Layout] = {
    "musan": Layout(
        lambda root: _children(root) >= _MUSAN_PARTS,
        _musan,
        ("noise", "speech"),
        lambda purpose: ("speech",) if purpose == "speech" else ("noise",),
    ),
    "urbansound8k": Layout(lambda root: (root / "audio" / "fold1").is_dir(), _urbansound8k),
    "esc50": Layout(lambda root: (root / "meta" / "esc50.csv").is_file(), _esc50),
    "fsd50k": Layout(lambda root: bool({"FSD50K.dev_audio", "FSD50K.eval_audio"} & _children(root)), _fsd50k),
    "demand": Layout(lambda root: next(root.glob("*/ch01.wav"), None) is not None, _demand),
    "wham": Layout(lambda root: {"tr", "tt"} <= _children(root), _wham),
    "chime": Layout(lambda root: next(root.glob("BGD_*"), None) is not None, _chime),
    "openslr28": Layout(
        lambda root: bool(
            {"simulated_rirs", "real_rirs_isotropic_noises", "pointsource_noises", "RIRS_NOISES"} & _children(root)
        ),
        _openslr28,
        ("noise", "rir"),
    ),
    "dns": Layout(
        lambda root: bool({"SLR26", "SLR28", "impulse_responses", "noise_fullband"} & _children(root)),
        _dns,
        ("noise", "rir"),
    ),
    "folder": Layout(lambda root: True, _folder, PURPOSES),
}


def _read_csv(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; it is part of the corpus and says what the recordings are")
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    missing = [column for column in columns if rows and column not in rows[0]]
    if missing or not rows:
        raise ValueError(f"{file} has no column {missing[0]!r}" if missing else f"{file} has no rows")
    return rows


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()] if file.is_file() else []
