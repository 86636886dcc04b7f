"""The one division of a run's settings into what a task's rules fix and what a run may choose.

Whether a run is standard, whether two numbers are comparable, and which runs are the same cell all follow from
:func:`split`: settings that are fixed decide, settings that are free (learning rate, data folders, workers, how an
update of 32 utterances is put together ...) never do.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistiller.common.written import flatten
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.configs import load_config, vocabulary_paths

#: Settings that change no number of a head, by their last name: how fast data is read, what is printed and kept.
IDLE = ("num_workers", "max_workers", "eval_batch_size", "eval_batchsize", "log_step", "max_keep")
#: Settings that a run of any task may choose, by their full or their last name.
FREE = (
    *IDLE,
    "optimizer.lr",
    "pre_load",
    "runner.save_step",
    "downstream_expert.datarc.train_meta_data",  # s3prl never reads it
    "downstream_expert.datarc.frame_shift",  # SD: s3prl notes the upstream's own here
    "downstream_expert.scorerc.save_predictions",
)
#: How features reach the head: command-line settings of s3prl, with the values that the benchmark prescribes.
ARGUMENTS = {
    "upstream_trainable": False,
    "upstream_feature_selection": "hidden_states",
    "upstream_layer_selection": None,
    "upstream_feature_normalize": False,
    "downstream_variant": None,
}
CLEAN = "clean"
_BATCH_SIZES = ("batch_size", "train_batch_size", "train_batchsize")
_ACCUMULATION = "runner.gradient_accumulate_steps"
# Model settings of s3prl in which one block of several is chosen by name: where the blocks are, and who names one.
_CHOICES = (("", "select"), ("module_config", "module"), ("LossConfig", "ObjectiveLoss"))


@dataclass(frozen=True)
class Split:
    """A run's settings, divided.

    Attributes:
        fixed: what the task's rules fix, as this run has it; equal wherever data and files lie.
        free: what the run chose, by flat dotted keys; paths by their last part.
    """

    fixed: dict[str, Any]
    free: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of `fixed`, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.fixed, sort_keys=True).encode()).hexdigest()


def split(
    task: Task,
    config: Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    train_condition: str = CLEAN,
    features: str | Mapping[str, str] = "",
    quick: str = "",
) -> Split:
    """Divide a run's settings by the rules of its task.

    Args:
        task: the registry entry.
        config: s3prl's configuration of the run.
        arguments: command-line settings of s3prl, e.g. ``vars(args)``; those that are missing are taken as standard.
        train_condition: condition of the head's training audio.
        features: precision of cached features that the head was trained or evaluated on, e.g. ``frames float16``, or
            both as records keep them; features of full precision count as computed on the spot.
        quick: label of a quick look at a part of the data; empty for the full run.
    """
    rules, fixed, free = task.rules, {}, {}
    roots = {root.key.removeprefix("config.") for root in task.roots}
    vocabularies = {key.removeprefix("config.") for key in vocabulary_paths(task)}
    settings, standard = _settings(config), _settings(load_config(task))
    batch = next((key for key in settings if key.rsplit(".", 1)[-1] in _BATCH_SIZES), None)
    updates = {batch, _ACCUMULATION} if batch and task.trainable else set()
    for key, value in settings.items():
        if key in rules.files and value:
            fixed[key] = [Path(str(one)).name for one in ([value] if isinstance(value, str) else value)]
        elif key in vocabularies:
            fixed[key] = content_of(value)
        elif key in roots or key in updates or _is_free(key, value, task):
            free[key] = _plain(value)
        elif key == "runner.eval_dataloaders":  # what is scored beside the development set changes nothing
            fixed[key] = [name for name in value or [] if name.startswith(("dev", "valid"))]
        elif value is not None and (value is not False or key in standard):  # what is off may as well be left out
            fixed[key] = _plain(value)
    if updates:
        fixed["utterances_per_update"] = _product(settings[batch], settings.get(_ACCUMULATION) or 1)
    runner = {key: config.get("runner", {}).get(key) or 0 for key in ("total_steps", "save_step", "max_keep")}
    if task.best_of_every and not _keeps_all(task.best_of_every, **runner):
        fixed["checkpoints"] = f"every {runner['save_step']} steps, the last {runner['max_keep']}"
    # s3prl names the fold by the variant; without a head the layer is what is chosen.
    chosen = {"downstream_variant": bool(task.folds), "upstream_layer_selection": not task.trainable}
    for name, standard in ARGUMENTS.items():
        given = arguments.get(name)
        if chosen.get(name):
            free |= {} if given is None else {name: _plain(given)}
        elif given is not None and given != standard:
            fixed[name] = _plain(given)
    halved = "float16" in (features if isinstance(features, str) else " ".join(features.values()))
    extras = {
        "train_condition": "" if train_condition == CLEAN else train_condition,
        "features": "frames float16" if halved else "",
        "quick": quick,
    }
    return Split({**fixed, **{name: value for name, value in extras.items() if value}}, free)


def deviations(task: Task, run: Split) -> list[str]:
    """What of a run is not as the benchmark prescribes, one phrase each; empty for a standard run."""
    rules, ours = task.rules, run.fixed
    standard = split(task, load_config(task), {}).fixed | {key: list(names) for key, names in rules.files.items()}
    found = [f"{task.code} is {rules.not_superb}"] if rules.not_superb else []
    for key in dict.fromkeys([*standard, *ours]):
        given, expected = ours.get(key), standard.get(key, ARGUMENTS.get(key))
        if given != expected and not (given is None and key in rules.files):
            found.append(_phrase(key, given, expected, task))
    return found


def test_set_deviations(task: Task, split: str, items: int | None, fold: str = "") -> list[str]:
    """The phrase for a test set that has not as many items as the official one, where both numbers are known.

    A single fold is no test set: only all of them together are counted.
    """
    official = None if fold else task.item_counts.get(split)
    known = official is not None and items is not None
    return [f"the {split} set has {items} items, not {official}"] if known and items != official else []


def _phrase(key: str, given: Any, expected: Any, task: Task) -> str:
    if key == "train_condition":
        return f"the head was trained under {given}, not on clean audio"
    if key == "features":
        return "the head was given features that were kept in half precision"
    if key == "quick":
        return f"a quick look ({given}), not the full task"
    if _is_fold(key, task):
        return f"{key} is {given}, not one of {', '.join(task.folds)}"
    if key == "checkpoints":
        return f"checkpoints are kept {given}, not all at multiples of {task.best_of_every}, of which the best counts"
    if key in task.rules.files:
        return f"{key} names {', '.join(given)}, not {', '.join(expected)}"
    if str(expected).startswith("sha256:"):
        return f"{key} has other contents than the benchmark's"
    return f"{key} is {given}, not {'left out' if expected is None and key not in ARGUMENTS else expected}"


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings, without blocks of model settings that the configuration does not select: s3prl reads none."""
    expert = dict(config.get("downstream_expert") or {})
    for name in {"modelrc", "model"} & set(expert):
        section = dict(expert[name] or {})
        for place, chooser in _CHOICES:
            blocks, chosen = section.get(place, {}) if place else section, section.get(chooser)
            if isinstance(blocks, Mapping) and chosen in blocks:
                kept = {k: v for k, v in blocks.items() if k == chosen or not isinstance(v, Mapping)}
                section = {**section, place: kept} if place else kept
        expert[name] = section
    return {key: value for key, value in flatten({**config, "downstream_expert": expert}).items() if value != {}}


def _is_free(key: str, value: Any, task: Task) -> bool:
    if _is_fold(key, task):
        return value in task.folds
    if key.startswith("runner.") and not task.trainable:  # about training
        return True
    return key in FREE or key.rsplit(".", 1)[-1] in FREE


def _is_fold(key: str, task: Task) -> bool:
    return bool(task.folds) and key == task.fold_key.removeprefix("config.")


def _keeps_all(best_of_every: int, total_steps: int, save_step: int, max_keep: int) -> bool:
    """Whether the checkpoints that a task's number is the best of are there at the end of the training."""
    kept = save_step > 0 and best_of_every % save_step == 0 and total_steps - max_keep * save_step < best_of_every
    return kept or total_steps < best_of_every


def _product(batch: Any, accumulation: Any) -> Any:
    whole = isinstance(batch, int) and isinstance(accumulation, int)
    return batch * accumulation if whole else f"{batch} x {accumulation}"


def content_of(path: Any) -> str:
    """What a small text file says, whatever it is called; its name where it cannot be read."""
    try:
        words = Path(str(path)).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return f"{Path(str(path)).name} (not readable)"
    return f"sha256:{hashlib.sha256(' '.join(words).encode()).hexdigest()}"


def _plain(value: Any) -> Any:
    """A value as JSON has it, the same for all spellings of it: 1 and 1.0, -.inf and "-math.inf", any folder."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, int | float) and math.isfinite(value):
        return int(value) if float(value).is_integer() and abs(value) < 2**53 else value
    text = str(value)
    if text.replace("math.", "") in ("inf", "-inf"):
        return text.replace("math.", "")
    return Path(text).name if Path(text).is_absolute() else text
