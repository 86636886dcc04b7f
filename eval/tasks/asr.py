"""Speech recognition: LibriSpeech, without and with a language model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import DataRoot, Metric, Rules, Submission, edit_errors

_DATA = "config.downstream_expert.datarc"
_PACKAGES = {"pandas": "pandas", "editdistance": "editdistance"}
_WER = Metric("wer", "wer", higher_is_better=False, scale=1.0, short="WER", points=(23.18, 3.62))


def _items(kept: Mapping[str, Any]) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    tokens = ((said.split(), meant.split()) for said, meant in zip(kept["pred_tokens"], kept["target_tokens"]))
    return {
        "wer": edit_errors(zip(kept["pred_words"], kept["target_words"])),
        "cer": edit_errors(tokens),
    }


def _count_files(dataset: Any, indices: Sequence[int]) -> int:
    return sum(len(dataset.X[index]) for index in indices)  # an element of the dataset is a batch


ASR = Task(
    code="ASR",
    title="speech recognition, LibriSpeech",
    downstream="asr",
    config="asr",
    metrics=(_WER, Metric("cer", "uer", higher_is_better=False, scale=1.0, short="CER")),
    splits=("test-clean", "test-other"),
    roots=(
        DataRoot(f"{_DATA}.libri_root", "LibriSpeech: SPLIT/SPEAKER/CHAPTER/*.flac and *.trans.txt"),
        DataRoot(f"{_DATA}.bucket_file", "folder of SPLIT.csv tables: file_path, length in samples, label"),
    ),
    corpora=(corpora.LIBRISPEECH,),
    data="robustdistiller.eval.data.librispeech:ASR",
    rules=Rules(
        train="train-clean-100",
        dev="dev-clean",
        test="test-clean (papers on robustness add test-other)",
        score="word error rate without a language model",
    ),
    packages=_PACKAGES,
    count_items=_count_files,
    items=_items,
    speaker=r"(\d+)-\d+-\d+",
    item_counts={"test-clean": 2620, "test-other": 2939},
    submission=Submission(
        "asr_public", {"test-clean-noLM-hyp.ark": "predict.ark"}, "test-clean-noLM-ref.ark", metrics=("wer",)
    ),
)
ASR_LM = replace(
    ASR,
    code="ASR-LM",
    title="speech recognition with a 4-gram language model, LibriSpeech",
    config="asr_lm",
    metrics=(replace(_WER, points=None), ASR.metrics[1]),
    roots=(
        *ASR.roots,
        DataRoot(f"{_DATA}.decoder_args.kenlm_model", "4-gram.arpa or its KenLM binary"),
        DataRoot(f"{_DATA}.decoder_args.lexicon", "letter lexicon: lines 'WORD L E T T E R S |'"),
    ),
    corpora=(corpora.LIBRISPEECH, corpora.LIBRISPEECH_LM),
    data="robustdistiller.eval.data.librispeech:ASR_LM",
    rules=Rules(
        train="nothing: it is the head of ASR",
        dev="dev-clean",
        test="test-clean",
        score="word error rate, decoded with LibriSpeech's official 4-gram",
        chosen="the head of ASR",
    ),
    packages={**_PACKAGES, "flashlight.lib.text": "flashlight-text", "kenlm": "kenlm"},
    told_by=(f"{_DATA}.decoder_args.decoder_type", "kenlm"),
    chosen_with={"decoder": None},
    submission=Submission(
        "asr_lm_public", {"test-clean-LM-hyp.ark": "predict.ark"}, "test-clean-LM-ref.ark", metrics=("wer",)
    ),
)
