"""What a run starts from, checked before the first step: the teacher and every data root."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from robustdistiller.acoustics import AudioInfo, AudioSource, Corruptor, Piece, RIRSource, SourceSpec, root_weights
from robustdistiller.acoustics.audio.listing import list_pieces
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import DistillConfig, OtherTeacherConfig, TeacherConfig
from robustdistiller.pretrain.data.headers import lists_folder, read_headers
from robustdistiller.pretrain.data.speech import RootReport, SpeechCuts, speech_cuts
from robustdistiller.pretrain.teacher.protocol import Teacher
from robustdistiller.upstream import ModelName, checkpoint_digest, read_checkpoint, read_model, resolve

logger = logging.getLogger(__name__)

_PURPOSES = {"noise": "noise", "rir": "rir", "babble": "speech", "music": "music"}
_MISSING = {
    "noise": "adds noise from files and there are none",
    "rir": "adds reverberation and there are no impulse responses",
    "babble": "adds voices and there is no speech to take them from",
    "music": "adds music and there is none",
}


def load_teacher(options: TeacherConfig | OtherTeacherConfig, key: str = "teacher") -> tuple[Teacher, dict[str, Any]]:
    """A teacher, and what identifies it: file name, format, SHA-256 and its own metadata.

    Raises:
        SettingsError: no checkpoint is given; `key` says of which section.
        FileNotFoundError: it does not exist.
        ValueError: it cannot be read as a model that can teach.
    """
    if not options.checkpoint:
        raise SettingsError(
            f"{key}.checkpoint: which model is to be distilled? give a path, a URL or org/name on the Hub"
        )
    checkpoint, notes = read_named(options.checkpoint, read_model)
    logger.info("%-8s %s (%s, sha256 %s...)", key, options.checkpoint, checkpoint.format, notes["sha256"][:12])
    return checkpoint.build(), notes


def read_named(name: str, read: Callable[..., Any] = read_checkpoint, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A model by its name, downloaded if need be, read with `options`, and what identifies it.

    Raises:
        FileNotFoundError: it is not there and could not be fetched.
        ValueError: it is no name, or cannot be read as what `read` reads.
    """
    path = resolve(name)
    checkpoint = read(path, **options)
    notes = {
        "file": ModelName.short_of(name),
        "format": checkpoint.format,
        "sha256": checkpoint_digest(path),
        "metadata": checkpoint.metadata,
    }
    return checkpoint, notes


def check_data(config: DistillConfig, out_dir: Path) -> tuple[SpeechCuts, Corruptor | None]:
    """Look through every data root, say what is there, and refuse what cannot work.

    Returns:
        The speech, and what corrupts it (`None` for a clean recipe).

    Raises:
        SettingsError: a root is missing, empty or broken, or the recipe needs one that is not given.
    """
    data, policy = config.data, config.corruption
    if not data.speech:
        raise SettingsError("data.speech: no speech to learn from; give data.speech=[FOLDER, ...]")
    longest, windows = ({data.long_files: data.max_samples}.get(choice) for choice in ("drop", "windows"))
    cuts, reports = speech_cuts(
        data.speech, lists_folder(data.manifest_dir, out_dir), data.min_samples, longest, windows
    )
    if set_apart := parts_set_apart(cuts):
        logger.warning(
            "data.speech: the student is trained on %s, too; where that is what it is tested with, give the folders to "
            "train on, as in data.speech=[LibriSpeech/train-clean-100,LibriSpeech/train-clean-360]",
            " and ".join(set_apart),
        )
    sources, found = open_sources(config, policy.needs if policy else ())
    for report in reports + found:
        logger.info("%s", report)
    return cuts, open_corruptor(config, sources)


def parts_set_apart(cuts: SpeechCuts) -> list[str]:
    """Folders called after a part to develop or test with (``test-clean``), in roots that have others beside them."""
    folders: dict[str, set[str]] = {}
    for cut in cuts.listed:
        root, *below, _ = cut.id.split("/")
        folders.setdefault(root, set()).add(below[0] if below else "")
    apart = re.compile(r"(dev|test)([-_]|$)", re.IGNORECASE)
    named = {root: set(filter(apart.match, inside)) for root, inside in folders.items()}
    return sorted(f"{root}/{one}" for root, found in named.items() if found != folders[root] for one in found)


def open_corruptor(config: DistillConfig, sources: dict[str, Any]) -> Corruptor | None:
    """What corrupts the training speech, from `sources` as `Corruptor` takes them; `None` for a clean recipe.

    Raises:
        SettingsError: no room has a reverberation time that the recipe wants.
    """
    try:
        return Corruptor(config.corruption, **sources, seed=config.seed) if config.corruption else None
    except ValueError as error:
        raise SettingsError(f"corruption: {error}") from error


def open_sources(
    config: DistillConfig, needed: Collection[str]
) -> tuple[dict[str, AudioSource | RIRSource], list[RootReport]]:
    """Noise, rooms, voices and music: what of the section `data` is `needed`, as `Corruptor` takes it.

    Raises:
        SettingsError: one that is needed is not given, empty or broken.
    """
    sources: dict[str, AudioSource | RIRSource] = {}
    reports: list[RootReport] = []
    for kind, purpose in _PURPOSES.items():
        roots, wanted = getattr(config.data, kind), purpose in needed
        if wanted and not roots:
            raise SettingsError(
                f"data.{kind}: the corruption {_MISSING[kind]}: give data.{kind}=[FOLDER, ...], or leave that out of "
                "corruption.tables"
            )
        if roots and not wanted:
            logger.warning("data.%s is given, but this corruption does not use it", kind)
        if wanted:
            exclude = config.data.noise_exclude if kind == "noise" else []
            folder = lists_folder(config.data.manifest_dir, Path(config.out_dir or "."))
            try:
                source, found = _open_source(kind, roots, exclude, folder)
            except (FileNotFoundError, ValueError) as error:
                raise SettingsError(f"data.{kind}: {error}") from error
            sources[purpose] = RIRSource(source) if kind == "rir" else source
            reports += found
    return sources, reports


def _open_source(
    kind: str, roots: list[str], exclude: list[str], manifest_dir: Path
) -> tuple[AudioSource, list[RootReport]]:
    pieces: list[Piece] = []
    infos: dict[str, AudioInfo] = {}
    reports: list[RootReport] = []
    specs = [SourceSpec.parse(root) for root in roots]
    weights = root_weights(specs)
    for root, spec in zip(roots, specs):
        path = Path(spec.path)
        everything = list_pieces(path)
        found = spec.pieces(_PURPOSES[kind], split="training", listed=everything)
        excluded = {piece.name for piece in found if any(fnmatchcase(piece.name, pattern) for pattern in exclude)}
        kept = [piece for piece in found if piece.name not in excluded]
        if not kept:
            raise ValueError(f"data.{kind}_exclude={exclude} leaves none of the {len(found)} files in {root}")
        # Of one root, each choice of recordings has a list of its own.
        chosen = replace(spec, path="", weight=None)
        place = hashlib.sha256(f"{path.resolve()}{'' if chosen == SourceSpec() else chosen}".encode()).hexdigest()[:8]
        headers, unreadable = read_headers(kept, manifest_dir / f"{kind}-{path.name}-{place}.json")
        kept = [piece for piece in kept if str(piece.file) not in unreadable]
        left_out = [f"{piece.name} by data.{kind}_exclude" for piece in found if piece.name in excluded]
        if others := {piece.name for piece in everything} - {piece.name for piece in found}:
            what = f"{min(others)} and {len(others) - 1} more" if len(others) > 1 else min(others)
            left_out.append(f"{what}: not {_PURPOSES[kind]} to train on")
        hours = AudioSource(kept, infos=headers).duration_s() / 3600
        reports.append(RootReport(kind, root, len(kept), hours, (*left_out, *unreadable.values())))
        infos |= headers
        # Several folders may hold files of the same name.
        pieces += kept if len(roots) == 1 else [replace(one, name=f"{path.name}/{one.name}") for one in kept]
    shares = weights and [w / one.files for w, one in zip(weights, reports) for _ in range(one.files)]
    return AudioSource(pieces, infos=infos, weights=shares), reports
