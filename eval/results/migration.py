"""Records of older releases, brought up to date; what their writers could not note is listed in ``unknown``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By schema: the fields it added, and the value that they have in a record of before.
_ADDED: dict[int, dict[str, Any]] = {
    2: {"outcomes": None, "selection": None},
    3: {"feature_cache": {}},
    4: {"non_standard": None},
    5: {"scoring": None, "fold": ""},
    6: {
        "head_digest": "",
        "rules_digest": "",
        "settings": {},
        "upstream_code": "",
        "audio_digest": "",
        "quick": "",
        "unknown": [],
    },
}
SCHEMA_VERSION = max(_ADDED)
# A deviation from the rules that older records do not call one.
HALF_PRECISION = "the head was given features that were kept in half precision"
# Before they were noted these could only have the value above.
_CERTAIN = ("outcomes", "selection", "quick", "unknown")


def to_current(data: Mapping[str, Any]) -> dict[str, Any]:
    """The plain data of a record of any schema as this release's.

    Schemas 1 to 5 told heads apart by one digest of their whole configuration, the free settings included. It is kept
    under ``settings`` as ``config_digest``; the digests of the head and of the rules stay unknown. Their digests of
    sources were of names and sizes.

    Raises:
        ValueError: no record, or one of a later release.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"a record is a JSON object, found {type(data).__name__}")
    version = data.get("schema_version")
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(
            f"schema_version is {version!r}, this release reads 1 to {SCHEMA_VERSION}; "
            "use the release of robustdistiller that wrote the record"
        )
    data = dict(data)
    if version == SCHEMA_VERSION:
        return data
    unknown = []
    for later in range(version + 1, SCHEMA_VERSION + 1):
        unknown += [name for name in _ADDED[later] if name not in data and name not in _CERTAIN]
        data = {**_ADDED[later], **data}
    if data.get("sources"):
        unknown.append("sources")
    if "config_digest" in data:
        data["settings"] = {"config_digest": data.pop("config_digest")}
    if data.get("status") == "failed" and not data.get("items_scored") and data.get("parameters") == 0:
        data["parameters"] = None  # written by a sweep that had loaded nothing
        if data.get("checkpoint_digest") == "none":
            data["checkpoint_digest"] = ""
    if isinstance(data["non_standard"], list) and "float16" in str(data["feature_cache"]):
        data["non_standard"] = [*data["non_standard"], HALF_PRECISION]
    return {**data, "unknown": unknown, "schema_version": SCHEMA_VERSION}
