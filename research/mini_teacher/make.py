"""Trains a teacher from speech packs to a checkpoint: pool, labels, log-mel model, waveform model."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from research.mini_teacher.labels import mfcc_labels
from research.mini_teacher.log_mel import LogMelModel, log_mel_loss
from research.mini_teacher.loop import Row, run_stage
from research.mini_teacher.pool import build_pool
from research.mini_teacher.recipe import Recipe
from research.mini_teacher.waveform import TrainedEncoder, feature_centres, waveform_loss
from robustdistiller.common.files import file_digest, write_atomically, write_text
from robustdistiller.common.locks import locked
from robustdistiller.common.settings import SettingsError
from robustdistiller.mini.pack import read_pack
from robustdistiller.upstream.checkpoints import save_checkpoint


def make_teacher(packs: Sequence[Path], out_dir: Path, recipe: Recipe, save_every: int = 250) -> Path:
    """Trains a teacher, or goes on with what an earlier call left in `out_dir`; both give the same bits.

    Args:
        packs: folders with `speech.tsv` and `speech/`, see `robustdistiller.mini.pack`; the first is the shipped one.
            Their dev and test utterances are left out.
        out_dir: gets `teacher.ckpt` (half precision; usable from the first saved waveform state on), `log.csv`, and
            `work/` with everything that a killed call goes on from.
        recipe: the settings.
        save_every: steps between saved states.

    Returns:
        The path of the teacher's checkpoint.

    Raises:
        SettingsError: `out_dir` holds a training with other settings or other packs.
        FileNotFoundError: a pack lacks its table or a recording.
        Busy: another process trains in `out_dir`.

    Example:
        >>> make_teacher([Path("nowhere")], Path("out"), Recipe())
        Traceback (most recent call last):
        FileNotFoundError: no speech pack in nowhere: expected the table nowhere/speech.tsv; ...
    """
    for pack in packs:
        read_pack(pack)  # what is missing is told before anything is written
    work_dir = out_dir / "work"
    with locked(work_dir / "lock", wait=False), torch.random.fork_rng(devices=[]):
        _refuse_another(work_dir / "recipe.json", packs, recipe)
        return _train(packs, out_dir, recipe, save_every)


def _train(packs: Sequence[Path], out_dir: Path, recipe: Recipe, save_every: int) -> Path:
    work_dir, rows = out_dir / "work", []
    pool = build_pool(packs, work_dir, recipe.syllable_share, recipe.shipped_share)
    labels = _kept(work_dir / "mfcc_labels.pt", lambda: mfcc_labels(pool, recipe.mfcc_clusters, recipe.seed))

    torch.manual_seed(recipe.seed)
    log_mel = LogMelModel(recipe.mfcc_clusters)
    log_mel.set_statistics(pool, recipe.seed)

    def write_log(_: nn.Module, __: int, new: list[Row]) -> None:
        write_text(out_dir / "log.csv", _csv([*rows, *new]))

    loss = partial(log_mel_loss, log_mel, pool, labels, recipe)
    log_mel, new = run_stage(
        "log_mel", recipe.log_mel, log_mel, loss, (recipe.seed, 1), work_dir / "log_mel.pt", save_every, write_log
    )
    rows += new
    centres = _kept(work_dir / "feature_centres.pt", lambda: feature_centres(pool, log_mel, recipe))

    torch.manual_seed(recipe.seed + 1)
    model = TrainedEncoder(recipe.mfcc_clusters, recipe.feature_clusters)
    for number, name in enumerate(("waveform", "spectral"), start=3):
        stage = recipe.stages()[name]

        def save(average: nn.Module, step: int, new: list[Row], name: str = name) -> None:
            write_log(average, step, new)
            _export(out_dir / "teacher.ckpt", average, packs, recipe, f"{step} of {name}")

        loss = partial(waveform_loss, model, log_mel, centres, pool, labels, recipe, stage)
        model, new = run_stage(
            name, stage, model, loss, (recipe.seed, number), work_dir / f"{name}.pt", save_every, save
        )
        rows += new
    write_log(model, 0, [])
    return _export(out_dir / "teacher.ckpt", model, packs, recipe, "all")


def _refuse_another(path: Path, packs: Sequence[Path], recipe: Recipe) -> None:
    """Writes what a folder's training is made of, or compares it with what is there."""
    made_of = dataclasses.asdict(recipe) | {"packs": [file_digest(pack / "speech.tsv") for pack in packs]}
    if not path.is_file():
        write_text(path, json.dumps(made_of, indent=1) + "\n")
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    for key, value in made_of.items():
        if known.get(key) != value:
            raise SettingsError(
                f"{path.parents[1]} holds a training with {key} {known.get(key)}, but {key} is {value} now; give the "
                "same settings to go on with it, or another --out to begin anew"
            )


def _kept(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """What `make` returns, kept in a file."""
    if not path.is_file():
        made = make()
        write_atomically(path, lambda file: torch.save(made, file))
    return torch.load(path, weights_only=True)


def _csv(rows: Sequence[Row]) -> str:
    """Rows as a table; a stage's columns are empty in the rows of the others."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _export(path: Path, model: TrainedEncoder, packs: Sequence[Path], recipe: Recipe, steps: str) -> Path:
    """Writes the encoder's averaged weights in half precision, with what they were trained on."""
    metadata = {
        "name": "robustdistiller mini teacher",
        "recipe": "research.mini_teacher: log-mel masked prediction, then regression and cluster prediction",
        "settings": dataclasses.asdict(recipe),
        "seed": recipe.seed,
        "steps": steps,
        "packs": [pack.resolve().name for pack in packs],
        "corruption": "none (dry speech)",
        "licence": "Apache-2.0 (weights); the speech keeps its own licences, see mini/teacher/README.md",
    }
    save_checkpoint(path, model.encoder, metadata, dtype=torch.float16)
    return path
