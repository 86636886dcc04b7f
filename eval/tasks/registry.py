"""The SUPERB tasks as s3prl runs them: names, metrics, splits, data roots, where a batch keeps its utterance ids.

One entry per configuration in ``downstream_configs/``. Everything that differs between tasks is said here once; the
launcher, the record writer, the table and ``robustdistiller doctor`` read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustdistiller.common.names import did_you_mean
from robustdistiller.eval.tasks import corpora, protocols
from robustdistiller.eval.tasks.base import DataRoot, Metric, Task

__all__ = ["TASKS", "DataRoot", "Metric", "Task", "get", "identify"]

_EXPERT = "config.downstream_expert"
_ACCURACY = (Metric("accuracy", "acc", higher_is_better=True),)
_WER = (Metric("wer", "wer", False, scale=1.0), Metric("cer", "uer", False, scale=1.0))
_SE_METRICS = (
    Metric("pesq", "pesq", True, unit="", scale=1.0),
    Metric("stoi", "stoi", True),
    Metric("si_sdr_improvement", "si_sdr", True, unit="dB", scale=1.0),
)
_SS_METRICS = (Metric("si_sdr_improvement", "si_sdr", True, unit="dB", scale=1.0),)
_ASR_ROOTS = (
    DataRoot(f"{_EXPERT}.datarc.libri_root", "LibriSpeech: SPLIT/SPEAKER/CHAPTER/*.flac and *.trans.txt"),
    DataRoot(f"{_EXPERT}.datarc.bucket_file", "folder of SPLIT.csv tables: file_path, length in samples, label"),
)
_SD_ROOTS = tuple(
    DataRoot(f"{_EXPERT}.loaderrc.{split}_dir", "Kaldi folder: wav.scp utt2spk spk2utt segments reco2dur")
    for split in ("train", "dev", "test")
)
_SE_ROOTS = tuple(
    DataRoot(f"{_EXPERT}.loaderrc.{split}_dir", "folder with noisy/wav.scp and clean/wav.scp")
    for split in ("train", "dev", "test")
)
_SS_ROOTS = tuple(
    DataRoot(f"{_EXPERT}.loaderrc.{split}_dir", "folder with mix_clean/wav.scp, s1/wav.scp and s2/wav.scp")
    for split in ("train", "dev", "test")
)
_SEPARATION = {"librosa": "librosa", "h5py": "h5py", "pesq": "pesq", "pystoi": "pystoi"}
_CTC = {"editdistance": "editdistance"}

_ALL = (
    Task(
        code="KS",
        title="keyword spotting, Speech Commands",
        downstream="speech_commands",
        config="ks",
        pooled_head=True,
        random_crops=True,
        metrics=_ACCURACY,
        roots=(
            DataRoot(f"{_EXPERT}.datarc.speech_commands_root", "WORD/HASH_nohash_N.wav and _background_noise_/"),
            DataRoot(f"{_EXPERT}.datarc.speech_commands_test_root", "the test set's twelve class folders"),
        ),
        corpora=(corpora.SPEECH_COMMANDS,),
        protocol=protocols.KS,
        tools=("sox",),
        item_counts={"test": 3081},
        note="sox is needed only for files that are not 16 kHz",
    ),
    Task(
        code="IC",
        title="intent classification, Fluent Speech Commands",
        downstream="fluent_commands",
        config="ic",
        pooled_head=True,
        metrics=_ACCURACY,
        roots=(DataRoot(f"{_EXPERT}.datarc.file_path", "data/{train,valid,test}_data.csv and wavs/"),),
        corpora=(corpora.FLUENT_SPEECH_COMMANDS,),
        protocol=protocols.IC,
        packages={"pandas": "pandas"},
        item_counts={"test": 3793},
    ),
    Task(
        code="SID",
        title="speaker identification, VoxCeleb1",
        downstream="voxceleb1",
        config="sid",
        pooled_head=True,
        random_crops=True,
        metrics=_ACCURACY,
        roots=(
            DataRoot(f"{_EXPERT}.datarc.file_path", "{dev,test}/wav/idXXXXX/VIDEO/NNNNN.wav"),
            DataRoot(f"{_EXPERT}.datarc.meta_data", "the split list: lines '1|2|3 idXXXXX/VIDEO/NNNNN.wav'"),
        ),
        corpora=(corpora.VOXCELEB1,),
        protocol=protocols.SID,
        packages={"librosa": "librosa"},
        item_counts={"test": 8251},
    ),
    Task(
        code="ER",
        title="emotion recognition, IEMOCAP",
        downstream="emotion",
        config="er",
        pooled_head=True,
        metrics=_ACCURACY,
        roots=(
            DataRoot(f"{_EXPERT}.datarc.root", "Session{1..5}/sentences/wav/DIALOG/UTTERANCE.wav"),
            DataRoot(
                f"{_EXPERT}.datarc.meta_data",
                "Session{1..5}/{train,test}_meta_data.json, made by: robustdistiller prepare ER ROOT",
            ),
        ),
        corpora=(corpora.IEMOCAP,),
        protocol=protocols.ER,
        item_counts={"test": 5531},
        folds=tuple(f"fold{number}" for number in range(1, 6)),
        fold_key=f"{_EXPERT}.datarc.test_fold",
        note="each run scores one fold; SUPERB reports the mean over five (datarc.test_fold=fold1..fold5)",
    ),
    Task(
        code="ASR",
        title="speech recognition, LibriSpeech",
        downstream="asr",
        config="asr",
        metrics=_WER,
        roots=_ASR_ROOTS,
        corpora=(corpora.LIBRISPEECH,),
        protocol=protocols.ASR,
        splits=("test-clean", "test-other"),
        best_checkpoint="dev-clean-best.ckpt",
        packages={"pandas": "pandas", **_CTC},
        item_counts={"test-clean": 2620, "test-other": 2939},
    ),
    Task(
        code="ASR-LM",
        title="speech recognition with a 4-gram language model, LibriSpeech",
        downstream="asr",
        config="asr_lm",
        metrics=_WER,
        roots=(
            *_ASR_ROOTS,
            DataRoot(f"{_EXPERT}.datarc.decoder_args.kenlm_model", "4-gram.arpa or its KenLM binary"),
            DataRoot(f"{_EXPERT}.datarc.decoder_args.lexicon", "letter lexicon: lines 'WORD L E T T E R S |'"),
        ),
        corpora=(corpora.LIBRISPEECH, corpora.LIBRISPEECH_LM),
        protocol=protocols.ASR_LM,
        splits=("test-clean", "test-other"),
        best_checkpoint="dev-clean-best.ckpt",
        packages={"pandas": "pandas", **_CTC, "flashlight.lib.text": "flashlight-text", "kenlm": "kenlm"},
        item_counts={"test-clean": 2620, "test-other": 2939},
    ),
    Task(
        code="PR",
        title="phoneme recognition, LibriSpeech",
        downstream="ctc",
        config="pr",
        metrics=(Metric("per", "per", False),),
        roots=(
            DataRoot(f"{_EXPERT}.corpus.path", "LibriSpeech: SPLIT/SPEAKER/CHAPTER/*.flac and *.trans.txt"),
            DataRoot(f"{_EXPERT}.corpus.lexicon", "files of lines 'WORD PH PH ...'", is_list=True),
        ),
        corpora=(corpora.LIBRISPEECH, corpora.LIBRISPEECH_LEXICA),
        protocol=protocols.PR,
        packages=_CTC,
        item_counts={"test": 2620},
    ),
    Task(
        code="SF",
        title="slot filling, Audio SNIPS",
        downstream="ctc",
        config="sf",
        metrics=(
            Metric("slot_type_f1", "slot_type_f1", True),
            Metric("slot_value_cer", "slot_value_cer", False),
        ),
        roots=(
            DataRoot(f"{_EXPERT}.corpus.path", "{train,valid,test}/SPEAKER-*.wav and all.iob.snips.txt"),
            DataRoot(f"{_EXPERT}.text.slots_file", "Audio SNIPS' slots.txt"),
        ),
        corpora=(corpora.AUDIO_SNIPS,),
        protocol=protocols.SF,
        packages=_CTC,
        item_counts={"test": 2800},
    ),
    Task(
        code="ASV",
        title="speaker verification, VoxCeleb1",
        downstream="sv_voxceleb1",
        config="asv",
        random_crops=True,
        metrics=(Metric("eer", "EER", False),),
        roots=(
            DataRoot(f"{_EXPERT}.datarc.file_path", "{dev,test}/wav/idXXXXX/VIDEO/NNNNN.wav"),
            DataRoot(f"{_EXPERT}.datarc.dev_meta_data", "trials among dev speakers: lines '1|0 PATH PATH'"),
            DataRoot(f"{_EXPERT}.datarc.test_meta_data", "the official trials: lines '1|0 PATH PATH'"),
        ),
        corpora=(corpora.VOXCELEB1,),
        protocol=protocols.ASV,
        id_position=0,
        best_checkpoint=None,
        packages={"librosa": "librosa", "sklearn": "scikit-learn", "joblib": "joblib"},
        tools=("sox",),
        note="a condition corrupts both sides of a trial, once per utterance, or with side=test the test side only",
    ),
    Task(
        code="SD",
        title="speaker diarization, Libri2Mix",
        downstream="diarization",
        config="sd",
        metrics=(
            Metric("der", None, False),
            Metric("frame_der", "der", False),
            Metric("frame_accuracy", "acc", True),
        ),
        roots=_SD_ROOTS,
        corpora=(corpora.LIBRI2MIX, corpora.LIBRI2MIX_SPEECH_TIMES),
        protocol=protocols.SD,
        corruption="recordings",
        id_position=2,
        best_checkpoint="best-states-dev.ckpt",
        packages={"pandas": "pandas", "h5py": "h5py"},
        item_counts={"test": 3000},
        note="DER as SUPERB scores it; frame_der is what s3prl prints, of which heads are chosen",
    ),
    Task(
        code="QbE",
        title="query by example, QUESST 2014 English",
        downstream="quesst14_dtw",
        config="qbe",
        metrics=(Metric("mtwv", None, True, unit="", scale=1.0),),
        roots=(DataRoot(f"{_EXPERT}.datarc.dataset_root", "Audio/ dev_queries/ eval_queries/ scoring/"),),
        corpora=(corpora.QUESST14,),
        protocol=protocols.QBE,
        splits=("eval", "dev"),
        id_position=0,
        best_checkpoint=None,
        trainable=False,
        packages={"dtw": "dtw-python", "lxml": "lxml"},
        tools=("sox",),
        note="MTWV needs the corpus' scoring/groundtruth_quesst14_* folders; choose the layer (-l) on dev",
    ),
    Task(
        code="SE",
        title="speech enhancement, VoiceBank-DEMAND",
        downstream="enhancement_stft",
        config="se",
        metrics=_SE_METRICS,
        roots=_SE_ROOTS,
        corpora=(corpora.VOICEBANK_DEMAND,),
        protocol=protocols.SE,
        id_position=0,
        corruption="mixture",
        best_checkpoint="best-states-dev.ckpt",
        packages=_SEPARATION,
        item_counts={"test": 824},
    ),
    Task(
        code="SE2",
        title="speech enhancement, VoiceBank-DEMAND (second recipe)",
        downstream="enhancement_stft2",
        config="se2",
        metrics=_SE_METRICS,
        roots=_SE_ROOTS,
        corpora=(corpora.VOICEBANK_DEMAND,),
        protocol=protocols.SE2,
        id_position=0,
        corruption="mixture",
        best_checkpoint="best-states-dev.ckpt",
        packages=_SEPARATION,
        item_counts={"test": 824},
    ),
    Task(
        code="SS",
        title="source separation, Libri2Mix",
        downstream="separation_stft",
        config="ss",
        metrics=_SS_METRICS,
        roots=_SS_ROOTS,
        corpora=(corpora.LIBRI2MIX,),
        protocol=protocols.SS,
        id_position=0,
        corruption="mixture",
        best_checkpoint="best-states-dev.ckpt",
        packages=_SEPARATION,
        item_counts={"test": 3000},
    ),
    Task(
        code="SS2",
        title="source separation, Libri2Mix (second recipe)",
        downstream="separation_stft2",
        config="ss2",
        metrics=_SS_METRICS,
        roots=_SS_ROOTS,
        corpora=(corpora.LIBRI2MIX,),
        protocol=protocols.SS2,
        id_position=0,
        corruption="mixture",
        best_checkpoint="best-states-dev.ckpt",
        packages=_SEPARATION,
        item_counts={"test": 3000},
    ),
    Task(
        code="ST",
        title="speech translation, CoVoST 2 English-German",
        downstream="speech_translation",
        config="st",
        metrics=(Metric("bleu", "bleu", True, unit="", scale=1.0),),
        roots=(DataRoot(f"{_EXPERT}.taskrc.data", "prepared CoVoST: {train,dev,test}.tsv, config.yaml, spm model"),),
        corpora=(corpora.COVOST2,),
        protocol=protocols.ST,
        corruption="none",
        packages={"fairseq": "fairseq-fixed", "sentencepiece": "sentencepiece", "sacrebleu": "sacrebleu", **_CTC},
        note="the only task that needs fairseq; its batches are built by fairseq",
    ),
)

TASKS: Mapping[str, Task] = {task.code: task for task in _ALL}


def get(name: str) -> Task:
    """The task called ``name``: a code in any case (``ic``) or s3prl's downstream name (``fluent_commands``).

    Raises:
        ValueError: the name is unknown (the nearest ones are given) or shared by several tasks.

    Example:
        >>> get("fluent_commands").code, get("asr-lm").code
        ('IC', 'ASR-LM')
    """
    by_code = {task.code.lower(): task for task in _ALL}
    if name.lower() in by_code:
        return by_code[name.lower()]
    matches = [task for task in _ALL if task.downstream == name]
    if len(matches) == 1:
        return matches[0]
    if name == "asr":  # the plain decoder is the benchmark's default
        return TASKS["ASR"]
    if matches:
        codes = " or ".join(f"-d {task.code}" for task in matches)
        raise ValueError(f"s3prl's downstream {name!r} serves several tasks: say {codes}, or give a config with -c.")
    known = [*TASKS, *sorted({task.downstream for task in _ALL})]
    raise ValueError(f"unknown task {name!r}{did_you_mean(name, known, most=3)}")


def identify(downstream: str, config: Mapping[str, Any]) -> Task | None:
    """The task that a finished s3prl configuration runs, or None if it is none of ours.

    Example:
        >>> identify("ctc", {"downstream_expert": {"corpus": {"name": "snips"}}}).code
        'SF'
    """
    expert = config.get("downstream_expert") or {}
    if downstream == "ctc":
        corpora = {"libriphone": "PR", "snips": "SF"}
        return TASKS.get(corpora.get(str((expert.get("corpus") or {}).get("name", "")).lower(), ""))
    if downstream == "asr":
        decoder = ((expert.get("datarc") or {}).get("decoder_args") or {}).get("decoder_type")
        return TASKS["ASR-LM" if decoder == "kenlm" else "ASR"]
    return next((task for task in _ALL if task.downstream == downstream), None)
