"""Every setting of every recipe beside the published one (`published_settings.yaml`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from robustdistiller import pretrain
from robustdistiller.common.written import flatten
from robustdistiller.pretrain import DistillConfig, list_recipes, load_config
from robustdistiller.pretrain.config.stages import stages_of

RECIPES = list(list_recipes())


@dataclass
class Published:
    """What is published of a recipe's stage, and what we set otherwise."""

    published: dict[str, list] = field(default_factory=dict)
    ours: dict[str, dict] = field(default_factory=dict)

    def over(self, entry: dict[str, Any]) -> Published:
        """With entries of a recipe that is built on this one: what it says of a key is all that holds of it."""
        published, ours = entry.get("published", {}), entry.get("ours", {})
        patterns = [*published, *ours, *(f"{key}.*" for key in published)]
        kept = [
            {key: value for key, value in of.items() if not any(fnmatchcase(key, pattern) for pattern in patterns)}
            for of in (self.published, self.ours)
        ]
        return Published({**kept[0], **published}, {**kept[1], **ours})


@cache
def _file() -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).parent / "published_settings.yaml").read_text(encoding="utf-8"))


def _published(recipe: str, stage: str) -> Published:
    entry = _file()["recipes"][recipe]
    below = _published(entry["like"], stage) if "like" in entry else Published()
    return below.over(entry).over(entry.get("stages", {}).get(stage, {}))


def _deciding(config: DistillConfig) -> dict[str, Any]:
    """The settings that decide what a stage trains: without options of terms that have no weight, and of no use."""
    values = {key: value for key, value in flatten(config.to_dict()).items() if not _is_among(key, "indifferent")}
    for name, term in vars(config.objectives).items():
        if not term.weight:
            values = {key: value for key, value in values.items() if not _is_option(key, name)}
        elif getattr(term, "snr_weighting", None) == "none":
            values = {key: value for key, value in values.items() if not _is_option(key, name, "snr_[lro]*")}
    if config.targets.layers != "auto":
        values = {key: value for key, value in values.items() if not key.startswith("targets.groups.")}
    if config.targets.match == "heads":
        values.pop("targets.share_maps")
    return values


def _is_option(key: str, term: str, pattern: str = "*") -> bool:
    return fnmatchcase(key, f"objectives.{term}.{pattern}") and not key.endswith(".weight")


def _is_among(key: str, part: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in _file()[part])


def _is_neutral(key: str, value: Any) -> bool:
    if re.fullmatch(r"objectives\.\w+\.weight", key) and value == 0:
        return True
    return any(fnmatchcase(key, pattern) and value == neutral for pattern, neutral in _file()["neutral"].items())


def differences(recipe: str, config: DistillConfig) -> list[str]:
    """Everything in which a configuration of a recipe is neither as published nor as said that we set it."""
    found = []
    for stage in stages_of(config):
        known, values = _published(recipe, stage.name), _deciding(stage.config)
        for key, (value, where) in known.published.items():
            if values.get(key) != value:
                found.append(f"{stage.name}: {key} is {values.get(key)}, published {value} ({where})")
        for key, entry in known.ours.items():
            if "here" in entry and values.get(key) != entry["here"]:
                found.append(f"{stage.name}: {key} is {values.get(key)}, we say {entry['here']}")
        for key, value in values.items():
            is_told = key in known.published or any(fnmatchcase(key, pattern) for pattern in known.ours)
            if not is_told and not _is_neutral(key, value):
                found.append(f"{stage.name}: {key} is {value}, and nothing is said of it")
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_settings_are_the_published_ones_or_told_to_be_ours(recipe: str) -> None:
    config = load_config(recipe)
    assert config.about and config.source
    assert differences(recipe, config) == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_we_set_otherwise_stands_in_the_recipe_with_its_reason(recipe: str) -> None:
    entry = _file()["recipes"][recipe]
    text = (Path(pretrain.__file__).parent / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
    deviations = {key: ours for key, ours in entry.get("ours", {}).items() if ours["there"] != "unknown" and key != "*"}
    for key, ours in deviations.items():
        assert ours["why"] and ours.get("here") != ours["there"], key
        assert key in text or key.rpartition(".")[2] in text, f"{key} is not told in {recipe}.yaml"


@pytest.mark.parametrize(
    ("recipe", "fault"),
    [
        ("dphubert", ["optim.betas=[0.9,0.98]"]),
        ("dphubert", ["optim.eps=1e-6"]),
        ("dpwavlm", ["stages.distil.optim.eps=1e-6"]),
        ("dphubert", ["targets.layers=[0,4,8,12]"]),
        ("dphubert", ["student.activation_dropout=0.1"]),
        ("dphubert", ["data.long_files=crop"]),
        ("dphubert", ["optim.clip_gates=false"]),
        ("dphubert", ["stages.distil.student.train_feature_scale=true"]),
        ("dphubert", ["stages.distil.trainer.max_steps=50000"]),
        ("distilhubert", ["student.feature_dropout=null"]),
        ("robustdistiller", ["optim.weight_decay=1e-6"]),
        ("robustdistiller", ["optim.decay_norms=false"]),
        ("robustdistiller", ["corruption.tables=[{clean: 1}]"]),
        ("robustdistiller_l2", ["objectives.enhancement.loss=l1"]),
        ("correlation", ["objectives.cross_correlation.eps=1e-4"]),
        ("correlation", ["objectives.l1=1"]),
        ("skill", ["targets.groups.count=4"]),
    ],
)
def test_a_setting_that_is_not_the_published_one_is_noticed(recipe: str, fault: list[str]) -> None:
    key = fault[0].partition("=")[0].removeprefix("stages.distil.")
    found = differences(recipe, load_config(recipe, fault))
    assert found and all(f": {key}" in line for line in found)
