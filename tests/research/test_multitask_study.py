"""The multi-task study on tones: held-out voices, rates chosen by development sets, a page, and going on."""

from __future__ import annotations

import csv
import re
import shutil

import pytest
import torch

from research.multitask_study import __main__ as command
from research.multitask_study.arms import ARMS, CONDITIONS, RATES, Arm, Study, choose_rates, split_voices
from research.recipe_study import distil
from robustdistiller.common.settings import SettingsError
from robustdistiller.eval.sweep.engine import InProcess
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint


@pytest.fixture(scope="module")
def game(pool, tmp_path_factory):
    """The pool, its one-second recordings spoken by six voices of the game, and by nobody."""
    root = tmp_path_factory.mktemp("game") / "pool"
    shutil.copytree(pool, root)
    with (root / "speech.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    names = ["queen_unknown", *(f"queen_{letter}" for letter in "FEDCBA")]
    for place, row in enumerate(row for row in rows if row["num_samples"] == "16000"):
        row["voice"] = names[place % 7]
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    (root / "speech.tsv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    path = tmp_path_factory.mktemp("student") / "student.ckpt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_checkpoint(path, SpeechEncoder(EncoderConfig.tiny(prediction_layers=(2,))), {})
    return path


def test_voices_that_test_are_in_no_other_split(game, materials, student):
    study = Study(materials, student, 2)
    counts = study.write_tables(game)
    voices = {split: set() for split in ("train", "dev", "test")}
    with (study.folder / "voices.tsv").open() as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            voices[row["split"]].add(row["label"])
            assert (study.folder / row["path"]).is_file() and row["path"].startswith("../multitask/clips/")
    assert voices == {"train": {"queen_A", "queen_B", "queen_C", "queen_F"}, "dev": {"queen_D"}, "test": {"queen_E"}}
    assert counts["voices"]["voices in train"] == 4 and counts["words"]["test"] > 0
    with pytest.raises(SettingsError, match="has 2 voices queen_"):
        split_voices(["queen_A", "queen_B", "queen_unknown"] * 8)


@pytest.mark.slow
def test_the_whole_study(game, materials, student, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(distil, "Pool", lambda workers: InProcess())
    # Equal error rates need two voices.
    monkeypatch.setattr("research.multitask_study.arms.split_voices", lambda voices: _TWO_EACH)
    out = tmp_path / "multitask.md"
    given = ["--pool", game, "--student", student, "--work", materials.work, "--out", out, "--steps", 2, "--seeds", 2]
    assert command.main([str(one) for one in given]) == 0, caplog.text
    study = Study(materials, student, 2)
    trials = [study.run(arm, 0, rate) for arm in ARMS for rate in RATES[arm.encoder]]
    rates = choose_rates(trials)
    for arm in ARMS:
        errors = {run.rate: run.dev_error() for run in trials if run.arm == arm}
        assert errors[rates[arm]] == min(errors.values())
    runs = [study.run(arm, seed, rates[arm]) for arm in ARMS for seed in (1, 2)]
    page = out.read_text()
    trained = Arm("words", "trainable")
    means = [
        sum(run.scores()["words", condition] for run in runs if run.arm == trained) / 2
        for condition in ("clean", *CONDITIONS)
    ]
    assert f"| words, encoder trained | {' | '.join(f'{mean:.1f}' for mean in means)} |" in page
    assert len(re.findall(r"[+-]\d+\.\d \([+-]\d+\.\d to [+-]\d+\.\d\)", page)) == 12
    caplog.clear()
    (runs[0].job.folder / "outcome.json").unlink()  # as if it had been killed before it was noted
    assert command.main([str(one) for one in given]) == 0
    assert [record.message for record in caplog.records if ": done (" in record.message] == [
        line for line in caplog.messages if line.startswith(f"{runs[0].arm}, rate")
    ]
    assert out.read_text() == page


_TWO_EACH = dict(zip((f"queen_{letter}" for letter in "ABCDEF"), ("train", "train", "dev", "dev", "test", "test")))
