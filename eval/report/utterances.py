"""Results of single utterances as one table, with the column names of Speech Robust Bench.

``id, reference, prediction, wer, cer, model, augmentation, severity, dataset, runid`` are that benchmark's. Records
keep error counts, not transcripts, so `reference` and `prediction` are empty. What follows is for tasks beside speech
recognition: ``task, metric, score``, the counts ``errors, units`` that the score is the ratio of, and the condition.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pandas as pd
import yaml

from robustdistiller.acoustics import Condition
from robustdistiller.eval.report.board import Board
from robustdistiller.eval.report.cells import parsed_condition
from robustdistiller.eval.results.frame import MEAN
from robustdistiller.eval.results.identity import CLEAN
from robustdistiller.eval.results.item_scores import items_of
from robustdistiller.eval.results.record import RecordError

#: Our kinds of condition to that benchmark's names, where they differ.
_SRB_NAMES = {
    "reverb": "rir",
    "talker": "crosstalk",
    "resampling": "resample",
    "low_pass": "lowpass",
    "high_pass": "highpass",
}
_SRB = ["id", "reference", "prediction", "wer", "cer", "model", "augmentation", "severity", "dataset", "runid"]
_COLUMNS = [*_SRB, "task", "metric", "score", "errors", "units", "speaker", "condition"]


def utterance_scores(board: Board) -> pd.DataFrame:
    """One line for each utterance, metric, condition, seed and system of a leaderboard's records.

    Records without results of single items are passed over. Severities are those of the suite ``srb``, 0 for clean
    speech; conditions that are not of the suite have none.
    """
    names = {row.system: row.name for row in board.measured}
    records = board.records
    usable = records[(records.status == "ok") & (records.fold != MEAN) & ~records.superseded.astype(bool)]
    severities = _severities()
    found = []
    for line in usable.drop_duplicates("path").itertuples():
        try:
            items = items_of(line.path)
        except (RecordError, OSError):
            continue
        if items is None or line.system not in names:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):  # where there is nothing to count errors of, as in silence
            rates = {name: scores.numerator / scores.denominator for name, scores in items.metrics.items()}
        for metric, scores in items.metrics.items():
            table = pd.DataFrame({"id": items.ids, "errors": scores.numerator, "units": scores.denominator})
            table["score"] = scores.scale * rates[metric]
            for name in ("wer", "cer"):
                table[name] = rates.get(name, pd.NA)
            table["speaker"] = [group if group != name else "" for group, name in zip(items.groups, items.ids)]
            found.append(
                table.assign(
                    reference="",
                    prediction="",
                    model=names[line.system],
                    augmentation=_augmentation(line.condition),
                    severity=severities.get(line.condition, pd.NA),
                    dataset=" ".join(part for part in (line.task, line.split, line.fold) if part),
                    runid=f"seed{line.seed}-{line.draws[:8]}",
                    task=line.task,
                    metric=metric,
                    condition=line.condition,
                )
            )
    return pd.concat(found, ignore_index=True)[_COLUMNS] if found else pd.DataFrame(columns=_COLUMNS)


def _augmentation(condition: str) -> str:
    """Speech Robust Bench's name of a perturbation, else the condition's kind."""
    parsed = parsed_condition(condition)
    if parsed is None:
        return condition
    if parsed.kind == "noise":
        return "gnoise" if parsed.get("noise") == "white" else "env_noise"
    return _SRB_NAMES.get(parsed.kind, parsed.kind)


def _severities() -> dict[str, int]:
    """Condition of the suite ``srb`` to its severity: it lists four of each perturbation, the weakest first."""
    suite = files("robustdistiller.downstream_configs") / "conditions" / "srb.yaml"
    listed = [text for text in yaml.safe_load(suite.read_text(encoding="utf-8"))["conditions"] if text != CLEAN]
    return {CLEAN: 0} | {str(Condition.parse(text)): place % 4 + 1 for place, text in enumerate(listed)}
