"""The layouts, read by s3prl's own datasets."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import soundfile

from robustdistiller.upstream.s3prl import bridge

SLOTS = ("action", "object", "location")


@pytest.fixture(scope="module")
def s3prl(tmp_path_factory):
    bridge.install(tmp_path_factory.mktemp("s3prl-cache"))
    return sys.modules


def label_sets(corpus):
    """Label sets as s3prl's expert makes them: from the training table, values and positions in one dictionary."""
    train = pd.read_csv(corpus.syllables / "data" / "train_data.csv")
    sets = {}
    for slot in SLOTS:
        sets[slot] = {}
        for index, value in enumerate(dict.fromkeys(train[slot])):
            sets[slot][value] = index
            sets[slot][index] = value
    return sets


def test_fluent_commands_dataset_reads_the_syllables(s3prl, corpus):
    from s3prl.downstream.fluent_commands.dataset import FluentCommandsDataset

    sets = label_sets(corpus)
    assert [len(sets[slot]) // 2 for slot in SLOTS] == [22, 36, 4]
    for split, items in (("train", 678), ("valid", 120), ("test", 346)):
        table = pd.read_csv(corpus.syllables / "data" / f"{split}_data.csv")
        assert not table.isna().any().any(), "a label that pandas reads as missing"
        dataset = FluentCommandsDataset(table, str(corpus.syllables), sets)
        assert len(dataset) == items
        for index in range(0, items, 17):
            waveform, label, name = dataset[index]
            assert waveform.dtype == np.float32
            assert len(waveform) == soundfile.info(corpus.syllables / table.path[index]).frames
            assert "_".join(sets[slot][number] for slot, number in zip(SLOTS, label)) == name


def test_every_label_of_dev_and_test_occurs_in_training(corpus):
    tables = {
        split: pd.read_csv(corpus.syllables / "data" / f"{split}_data.csv") for split in ("train", "valid", "test")
    }
    for slot in SLOTS:
        known = set(tables["train"][slot])
        assert set(tables["valid"][slot]) <= known
        assert set(tables["test"][slot]) <= known


def test_asr_dataset_reads_the_prompts(s3prl, corpus):
    from s3prl.downstream.asr.dataset import SequenceDataset
    from s3prl.downstream.asr.dictionary import Dictionary

    dictionary = Dictionary()
    for symbol in "|ETAONIHSRDLUMCWFGYPBVK'XJQZ":
        dictionary.add_symbol(symbol)
    for split, items in (("train-clean-100", 368), ("dev-clean", 56), ("test-clean", 110)):
        dataset = SequenceDataset(
            "train", 1, dictionary, str(corpus.prompts), str(corpus.prompts_bucket), train=[split]
        )
        assert len(dataset) == items
        labels = np.concatenate(list(dataset.Y.values()))
        assert dictionary.unk() not in labels, "a character outside the vocabulary"
        lengths = pd.read_csv(corpus.prompts_bucket / f"{split}.csv").length
        assert lengths.is_monotonic_decreasing
        waveforms, _, names = dataset[items // 2]
        assert len(waveforms[0]) == lengths[items // 2]
        assert names[0] in dataset.Y


def test_overrides_point_at_what_exists(corpus):
    for downstream in ("fluent_commands", "asr"):
        for key, path in corpus.overrides(downstream).items():
            assert key.startswith("config.downstream_expert.datarc.")
            assert corpus.root in type(corpus.root)(path).parents
            assert type(corpus.root)(path).exists()
