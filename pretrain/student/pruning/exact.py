"""Meeting a number of parameters with whole units."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from torch import Tensor


def to_target(
    is_open: Mapping[Hashable, Tensor],
    logits: Mapping[Hashable, Tensor],
    keep_one: set[Hashable],
    count: Callable[[dict[Hashable, int]], int],
    target: float,
) -> dict[Hashable, Tensor]:
    """Close units while there are too many parameters, or open some while there are too few.

    The most doubtful come first, each only if that brings the number nearer to the target.

    Args:
        is_open: `(units,)` bool of each vector of gates.
        logits: `(units,)` of the probability that each is open.
        keep_one: vectors whose last open unit stays.
        count: parameters, given the number of open units of each vector.
        target: parameters wanted.
    """
    masks = {key: mask.cpu().clone() for key, mask in is_open.items()}
    numbers = {key: int(mask.sum()) for key, mask in masks.items()}
    found, changed = count(numbers), True
    while changed:  # each round ends nearer to the target than it began, or is the last
        changed, closing = False, found > target
        useless: set[Hashable] = set()  # vectors one unit of which would lead away from the target
        for key, index in _doubtful_first(masks, logits, closing):
            if (found > target) != closing or found == target:
                break
            if key in useless or (closing and key in keep_one and numbers[key] == 1):
                continue
            trial = {**numbers, key: numbers[key] + (-1 if closing else 1)}
            after = count(trial)
            if abs(after - target) < abs(found - target):
                masks[key][index] = not closing
                numbers, found, changed = trial, after, True
                useless.clear()
            else:
                useless.add(key)
    return {key: mask.to(logits[key].device) for key, mask in masks.items()}


def _doubtful_first(masks: Mapping, logits: Mapping, closing: bool) -> list[tuple[Hashable, int]]:
    """Open units with the smallest logits first, or closed ones with the greatest first."""
    units = [
        (logit, key, index)
        for key, mask in masks.items()
        for index, (logit, is_open) in enumerate(zip(logits[key].tolist(), mask.tolist()))
        if is_open == closing
    ]
    return [(key, index) for _, key, index in sorted(units, key=lambda unit: unit[0], reverse=not closing)]
