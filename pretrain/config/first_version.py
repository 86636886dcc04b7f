"""Reads configurations of the first version, which had `then` for a second stage, as what they are today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustdistiller.acoustics.first_version import without_modes
from robustdistiller.common.settings import SettingsError
from robustdistiller.common.written import merge, to_plain


def as_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration with what the first version said otherwise in today's words.

    - `then`, settings of a second stage, are those of the last stage; `then: null` over a recipe of several stages
      leaves the first one.
    - A corruption of the first version had modes; see `acoustics.first_version`.
    - Noise was kept decoded on disk (`data.decoded_gib`); it is not any more.

    Raises:
        SettingsError: probabilities of the corruption that do not add up to 1, or options of a mode over other tables.
    """
    values = dict(values)
    if "then" in values:
        second, stages = to_plain(values.pop("then")), dict(values.get("stages") or {})
        if second:
            stages = stages if len(stages) > 1 else {**(stages or {"first": {}}), "distil": {}}
            last = list(stages)[-1]
            values["stages"] = {**stages, last: merge(stages[last], second)}
        elif stages:
            first = next(iter(stages))
            values["stages"] = {first: stages[first]}
    if isinstance(values.get("corruption"), Mapping):
        try:
            values["corruption"] = without_modes(to_plain(values["corruption"]))
        except (TypeError, ValueError) as error:
            raise SettingsError(f"corruption: {error}") from None
    if isinstance(values.get("data"), Mapping):
        values["data"] = {key: value for key, value in values["data"].items() if key != "decoded_gib"}
    return values
