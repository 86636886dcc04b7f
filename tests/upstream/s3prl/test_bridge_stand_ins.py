"""Stand-ins for packages and corpora that s3prl needs and does not ship: separation metrics, corpora for CTC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robustdistiller.eval.check.toy_corpora import text, voice, write
from robustdistiller.upstream.s3prl.bridge import ctc_corpus, separation


@pytest.mark.parametrize(
    ("sources", "permute", "expected"),
    [
        # what asteroid 0.7.0 with pb_bss_eval 0.0.2, pystoi and pesq return on these signals
        (1, False, {"si_sdr": 10.96026, "stoi": 0.76634, "pesq": 1.43919, "input_si_sdr": 15.47836}),
        (
            2,
            True,
            {"si_sdr": 8.09142, "stoi": 0.71767, "pesq": 1.1818, "input_si_sdr": -0.11867, "input_stoi": 0.50691},
        ),
    ],
)
def test_separation_metrics_are_asteroids(sources, permute, expected):
    pytest.importorskip("pesq")
    rng = np.random.default_rng(sources)
    clean = np.stack([voice(f"source{index}", 2.0) for index in range(sources)])
    mix = (clean.sum(0) + 0.02 * rng.standard_normal(clean.shape[1]))[None]
    estimate = 0.5 * clean[::-1] + 0.1 * clean + 0.02 * rng.standard_normal(clean.shape)
    found = separation.get_metrics(mix, clean, estimate, compute_permutation=permute)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=2e-4)
    if permute:
        unordered = separation.get_metrics(mix, clean, estimate, metrics_list="si_sdr")
        assert unordered["si_sdr"] < found["si_sdr"] - 10


def test_separation_metrics_refuse_what_they_cannot_do():
    clean = np.ones((1, 800))
    with pytest.raises(ValueError, match=r"no the metrics \['sdr'\]; it knows .*install asteroid"):
        separation.get_metrics(clean, clean, clean, metrics_list=["sdr"])
    with pytest.raises(ValueError, match="average=False"):
        separation.get_metrics(clean, clean, clean, average=False)
    with pytest.raises(ValueError, match=r"found \(1, 800\), \(2, 800\)"):
        separation.get_metrics(clean, clean, np.ones((2, 800)))
    with pytest.raises(ValueError, match="pit_from='pw_mtx' only, found 'pw_pt'"):
        separation.PITLossWrapper(lambda *_: None, pit_from="pw_pt")


def test_permutation_invariant_loss_takes_the_best_assignment():
    generator = torch.Generator().manual_seed(0)
    pairwise = torch.rand(4, 3, 3, generator=generator)
    found = separation.PITLossWrapper(lambda estimates, _targets: estimates)(pairwise, pairwise)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    best = [min(sum(matrix[order[j]][j] for j in range(3)) / 3 for order in orders) for matrix in pairwise.tolist()]
    assert found.item() == pytest.approx(sum(best) / 4)


# ------------------------------------------------------------------------------------------------------ ctc corpora


class Phonemes:
    """What the data set uses of s3prl's word encoder."""

    token_type = "word"
    _vocab2idx = dict.fromkeys(("K", "AE1", "T", "DH", "AH0"), 0)

    def encode(self, line: str) -> list[str]:
        return line.split()


def test_ctc_corpora_are_left_alone_where_s3prl_has_them(module_table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for key in [key for key in module_table if key.startswith("s3prl")]:
        del module_table[key]
    package = tmp_path / "s3prl" / "downstream" / "ctc" / "corpus"
    text(package / "libriphone.py", "LibriPhoneDataset = 'real'")
    text(tmp_path / "s3prl" / "__init__.py", "")
    monkeypatch.syspath_prepend(tmp_path)
    assert not ctc_corpus.bridge_ctc_corpus().applied
    assert "s3prl.downstream.ctc.corpus" not in module_table
    (package / "libriphone.py").unlink()
    assert ctc_corpus.bridge_ctc_corpus().applied
    from s3prl.downstream.ctc.corpus.libriphone import LibriPhoneDataset

    assert LibriPhoneDataset is ctc_corpus.LibriPhoneDataset


def libriphone(root: Path, *lexicon_lines: str, **options) -> ctc_corpus.LibriPhoneDataset:
    for index, words in enumerate(("CAT", "THE CAT", "THE THE CAT")):
        write(root / "dev-clean" / "1" / "2" / f"1-2-{index:04d}.flac", 0.1)
        with (root / "dev-clean" / "1" / "2" / "1-2.trans.txt").open("a") as transcripts:
            transcripts.write(f"1-2-{index:04d} {words}\n")
    lexicon = [str(text(root / "lexicon.txt", *lexicon_lines))]
    settings = {"bucket_size": 2, "lexicon": lexicon, **options}
    return ctc_corpus.LibriPhoneDataset(["dev-clean"], Phonemes(), path=str(root), **settings)


def test_libriphone_sorts_buckets_and_takes_the_first_pronunciation(tmp_path: Path):
    data = libriphone(tmp_path, "CAT K AE1 T", "THE DH AH0", "THE DH AE1", num_workers=3)
    lengths = [len(labels) for _, labels in (data[0] + data[2][1:])]
    assert len(data) == 3 and lengths == [7, 5, 3]
    assert data[2] == data[1], "the last index yields a full bucket"
    assert data[0][1][1] == ["DH", "AH0", "K", "AE1", "T"]
    assert libriphone(tmp_path / "single", "CAT K AE1 T", "THE DH AH0", bucket_size=1)[2][1] == ["K", "AE1", "T"]


def test_libriphone_names_what_is_wrong(tmp_path: Path):
    with pytest.raises(ValueError, match=r"1 words of \['dev-clean'\] have no pronunciation in .*: THE\."):
        libriphone(tmp_path / "oov", "CAT K AE1 T")
    with pytest.raises(ValueError, match=r"Unknown phoneme 'QQ' for the word 'THE' in .*lexicon\.txt, line 2"):
        libriphone(tmp_path / "symbol", "CAT K AE1 T", "THE DH QQ")
    with pytest.raises(FileNotFoundError, match="needs a pronunciation lexicon"):
        libriphone(tmp_path / "none", "CAT K", lexicon=None)
    with pytest.raises(FileNotFoundError, match=r"No such lexicon: .*missing\.txt"):
        libriphone(tmp_path / "missing", "CAT K", lexicon=[str(tmp_path / "missing.txt")])
    with pytest.raises(FileNotFoundError, match=r"No \.flac file below"):
        ctc_corpus.LibriPhoneDataset(["train"], Phonemes(), 1, str(tmp_path), str(text(tmp_path / "l.txt", "CAT K")))
    write(tmp_path / "dev-clean" / "1" / "2" / "1-2-0009.flac", 0.1)
    with pytest.raises(ValueError, match=r"have no line in a \*\.trans\.txt, the first is .*1-2-0009\.flac"):
        ctc_corpus.LibriPhoneDataset(["dev-clean"], Phonemes(), 1, str(tmp_path), [str(tmp_path / "l.txt")])


def test_snips_chooses_speakers_and_skips_unlabelled_files(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for name in ("Ivy-1", "Ivy-2", "Amy-1", "Ivy-unlabelled"):
        write(tmp_path / "train" / f"{name}.wav", 0.1)
    text(tmp_path / "all-trans.txt", "Ivy-1 PLAY IT", "Ivy-2 PLAY IT AGAIN", "Amy-1 STOP")
    speakers = {"train_speakers": ["Ivy"], "test_speakers": ["Brian"]}
    data = ctc_corpus.SnipsDataset(["train"], Phonemes(), 1, str(tmp_path), **speakers)
    assert [(Path(file).stem, labels) for file, labels in data.items] == [
        ("Ivy-2", ["PLAY", "IT", "AGAIN"]),
        ("Ivy-1", ["PLAY", "IT"]),
    ]
    assert "1 of 4 files in train have no label" in caplog.text
    (tmp_path / "test").mkdir()
    with pytest.raises(FileNotFoundError, match=r"speakers Brian below .*test' \(0 \.wav files found\)"):
        ctc_corpus.SnipsDataset(["test"], Phonemes(), 1, str(tmp_path), **speakers)
    with pytest.raises(FileNotFoundError, match=r"No such label file: .*all-trans\.txt"):
        ctc_corpus.SnipsDataset(["train"], Phonemes(), 1, str(tmp_path / "none"), **speakers)
