"""What makes a run non-standard: everything in which it differs from its task's rules, in words.

The rules are in `eval.protocols`; the configuration that they prescribe is the shipped one of `downstream_configs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustdistiller.eval.report.robustness import CLEAN
from robustdistiller.eval.tasks import configs as task_configs
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.protocols import FREE, Protocol

#: Command-line settings of s3prl that a standard run leaves at these values.
_HEAD_ARGUMENTS = {
    "upstream_trainable": False,
    "upstream_feature_selection": "hidden_states",
    "upstream_layer_selection": None,
    "upstream_feature_normalize": False,
}
_BATCH_SIZES = ("batch_size", "train_batch_size", "train_batchsize")
_ACCUMULATION = "runner.gradient_accumulate_steps"
# Below these s3prl reads the selected blocks of settings only.
_BLOCKS = ("downstream_expert.modelrc.", "downstream_expert.model.")


def deviations(
    task: Task, config: Mapping[str, Any], arguments: Mapping[str, Any], train_condition: str = CLEAN
) -> list[str]:
    """What of a run is not as the benchmark prescribes, one phrase each; empty for a standard run.

    The batch size and the gradient accumulation are compared by their product, the utterances of an update.

    Args:
        task: the registry entry.
        config: s3prl's configuration of the run.
        arguments: command-line settings of s3prl, e.g. ``vars(args)``; those that are missing are taken as standard.
        train_condition: condition of the head's training audio.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> run = task_configs.load_config(tasks.get("IC"))
        >>> run["optimizer"]["lr"], run["runner"]["total_steps"] = 1e-2, 4000
        >>> run["downstream_expert"]["datarc"]["train_batch_size"] = 8
        >>> deviations(tasks.get("IC"), run, {"upstream_trainable": True})
        ['runner.total_steps is 4000, not 200000', 'updates see 8 (8 x 1) utterances, not 32 (32 x 1)', \
'upstream_trainable is True, not False']
    """
    protocol, shipped = task.protocol, task_configs.load_config(task)
    ours, theirs = dict(_leaves(config)), dict(_leaves(shipped))
    roots = [root.key.removeprefix("config.") for root in task.roots]
    special = [*roots, *protocol.allowed, *protocol.files]
    batch = [key for key in theirs if key.rsplit(".", 1)[-1] in _BATCH_SIZES]
    if _ACCUMULATION in theirs and batch:
        special += [_ACCUMULATION, *batch]
    found = [] if protocol.comparable else [f"{task.code} is s3prl's second recipe, not SUPERB's"]
    for key in dict.fromkeys([*theirs, *ours]):
        if key in special or _is_free(key, protocol) or _is_unused(key, shipped):
            continue
        if key.startswith("runner.") and not task.trainable:  # about training
            continue
        given, standard = ours.get(key), theirs.get(key)
        if not _same(key, given, standard):
            found.append(f"{key} is {given}, not {'left out' if standard is None else standard}")
    found += _updates(ours, theirs, batch)
    found += _choices(ours, protocol)
    for name, standard in _HEAD_ARGUMENTS.items():
        given = arguments.get(name)
        if name not in protocol.free_arguments and given is not None and given != standard:
            found.append(f"{name} is {given}, not {standard}")
    if train_condition != CLEAN:
        found.append(f"the head was trained under {train_condition}, not on clean audio")
    return found


def test_set_deviations(task: Task, split: str, items: int | None, fold: str = "") -> list[str]:
    """The phrase for a test set that has not as many items as the official one, where both numbers are known.

    A single fold is no test set: only all of them together are counted.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> test_set_deviations(tasks.get("IC"), "test", 3)
        ['the test set has 3 items, not 3793']
        >>> test_set_deviations(tasks.get("IC"), "test", 3793)
        []
    """
    official = None if fold else task.item_counts.get(split)
    known = official is not None and items is not None
    return [f"the {split} set has {items} items, not {official}"] if known and items != official else []


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif not isinstance(node, Mapping):
        yield path, node


def _is_free(key: str, protocol: Protocol) -> bool:
    return any(key == free or key.rsplit(".", 1)[-1] == free for free in (*FREE, *protocol.free))


def _is_unused(key: str, shipped: Mapping[str, Any]) -> bool:
    """Whether a key stands in a block of model settings that the shipped configuration does not select."""
    if not key.startswith(_BLOCKS):
        return False
    node: Any = shipped
    *parents, _ = key.split(".")
    for part in parents:
        if not isinstance(node, Mapping) or part not in node:
            return True
        node = node[part]
    return False


def _same(key: str, given: Any, standard: Any) -> bool:
    if key == "runner.eval_dataloaders":  # what is scored beside the development set changes nothing
        return [s for s in given or [] if s.startswith("dev")] == [s for s in standard or [] if s.startswith("dev")]
    if isinstance(standard, str) and isinstance(given, str) and Path(standard).is_absolute():
        return _same_vocabulary(Path(given), Path(standard))
    if "-inf" in (str(given), str(standard)):
        return str(given).replace("math.", "") == str(standard).replace("math.", "")
    if isinstance(given, list | tuple) and isinstance(standard, list | tuple):
        return list(given) == list(standard)
    return given == standard


def _same_vocabulary(given: Path, standard: Path) -> bool:
    try:
        return given == standard or given.read_text(encoding="utf-8").split() == standard.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError):
        return False


def _updates(ours: Mapping[str, Any], theirs: Mapping[str, Any], batch: Sequence[str]) -> list[str]:
    def size(values: Mapping[str, Any]) -> tuple[Any, Any]:
        return values.get(batch[0]), values.get(_ACCUMULATION) or 1

    if not batch or _ACCUMULATION not in theirs:
        return []
    (a, b), (c, d) = size(ours), size(theirs)
    if isinstance(a, int) and isinstance(b, int) and a * b == c * d:
        return []
    product = a * b if isinstance(a, int) and isinstance(b, int) else "unknown"
    return [f"updates see {product} ({a} x {b}) utterances, not {c * d} ({c} x {d})"]


def _choices(ours: Mapping[str, Any], protocol: Protocol) -> list[str]:
    """Settings that must have one of several values, and files that must have given names."""
    found = []
    for key, values in protocol.allowed.items():
        if ours.get(key) not in values:
            found.append(f"{key} is {ours.get(key)}, not one of {', '.join(map(str, values))}")
    for key, names in protocol.files.items():
        given = ours.get(key) or []
        given = tuple(Path(str(one)).name for one in ([given] if isinstance(given, str) else given))
        if given and given != names:
            found.append(f"{key} names {', '.join(given)}, not {', '.join(names)}")
    return found
