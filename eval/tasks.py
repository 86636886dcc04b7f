"""The SUPERB tasks as s3prl runs them: names, metrics, splits, data roots, where a batch keeps its utterance ids.

One entry per configuration in ``downstream_configs/``. Everything that differs between tasks is said here once; the
launcher, the record writer, the table and ``robustdistiller doctor`` read it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One number a task reports.

    ``key`` is how s3prl names it: the scalar ``.../{split}-{key}`` handed to the logger, or None where s3prl computes
    no score itself. ``scale`` turns s3prl's value into the reported one (accuracies and error rates become per cent).

    Example:
        >>> wer = get("ASR").metric
        >>> wer.key, wer.higher_is_better, wer.unit
        ('wer', False, '%')
    """

    name: str
    key: str | None
    higher_is_better: bool
    unit: str = "%"
    scale: float = 100.0


@dataclass(frozen=True)
class DataRoot:
    """A path the user must give: its ``-o`` key and what has to be there.

    Example:
        >>> get("IC").roots[0].key
        'config.downstream_expert.datarc.file_path'
    """

    key: str
    what: str
    is_list: bool = False


@dataclass(frozen=True)
class Task:
    """How s3prl runs one task, and what we need to know around it.

    Attributes:
        code: short name, as in SUPERB's table (``IC``).
        title: what the task is.
        downstream: s3prl's ``-d`` name.
        config: file in ``downstream_configs/`` without ``.yaml``.
        metrics: the first one is the task's headline number.
        splits: test splits for ``-t``; the first one is the default.
        roots: paths the user must give.
        id_position: index of the utterance ids in what follows the waveforms in a batch, ``(waveforms, *others)``.
        corruption: ``"waveforms"``: corrupting the first batch item is enough; ``"mixture"``: the batch also holds the
            mixture's spectrogram, which must be rebuilt; ``"none"``: the batch has another layout.
        best_checkpoint: what s3prl saves when the development score improves, None if it chooses no checkpoint.
        trainable: False for a task without a trained head.
        packages: import names needed beyond the core, given as ``import name: pip name``.
        tools: system tools needed.
        item_counts: scored items of the official test split, where published.
        note: what a reader of the number must know.

    Example:
        >>> task = get("IC")
        >>> task.downstream, task.splits[0], task.item_counts["test"]
        ('fluent_commands', 'test', 3793)
    """

    code: str
    title: str
    downstream: str
    config: str
    metrics: tuple[Metric, ...]
    roots: tuple[DataRoot, ...]
    splits: tuple[str, ...] = ("test",)
    id_position: int = 1
    corruption: str = "waveforms"
    best_checkpoint: str | None = "dev-best.ckpt"
    trainable: bool = True
    packages: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    item_counts: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    @property
    def metric(self) -> Metric:
        """The headline metric."""
        return self.metrics[0]

    def scores(self, scalars: Mapping[str, float], split: str) -> dict[str, float]:
        """Pick this task's numbers out of what s3prl logged.

        Args:
            scalars: logger tag to value, as passed to ``add_scalar``.
            split: the evaluated split.

        Returns:
            Metric name to reported value (scaled, see :class:`Metric`).

        Raises:
            ValueError: the headline metric was not logged.

        Example:
            >>> get("IC").scores({"fluent_commands/test-acc": 0.5, "fluent_commands/test-intent_loss": 2.0}, "test")
            {'accuracy': 50.0}
        """
        found = {}
        for metric in self.metrics:
            values = [value for tag, value in scalars.items() if tag.endswith(f"/{split}-{metric.key}")]
            if values:
                found[metric.name] = float(values[-1]) * metric.scale
        if self.metric.key is not None and self.metric.name not in found:
            raise ValueError(
                f"s3prl logged no {self.code} {self.metric.name} for split {split!r}: expected a scalar ending in "
                f"'/{split}-{self.metric.key}', found {sorted(scalars)}. Was the evaluation interrupted?"
            )
        return found

    def utterance_ids(self, others: Sequence[Any], batch_size: int) -> list[str]:
        """Ids of a batch's waveforms, the same wherever the corpus lies.

        A diarization recording arrives cut into chunks: they are numbered. Verification names utterances by their
        path: its last three parts are kept.

        Args:
            others: what follows the waveforms in the batch.
            batch_size: number of waveforms.

        Raises:
            ValueError: the task has no ids in its batches, or their number differs from ``batch_size``.

        Example:
            >>> get("ASV").utterance_ids((["/data/vox1/test/wav/id10270/5r0dWxy17C8/00001.wav"],), 1)
            ['id10270-5r0dWxy17C8-00001']
            >>> get("SD").utterance_ids((None, None, "rec7"), 2)
            ['rec7-000', 'rec7-001']
        """
        if self.corruption == "none":
            raise ValueError(f"{self.code} batches carry no utterance ids: this task cannot be evaluated corrupted.")
        ids = others[self.id_position]
        if self.code == "SD":
            if not isinstance(ids, str):
                raise ValueError(f"SD names its recordings on the test split only, found {ids!r}: use -t test.")
            ids = [f"{ids}-{chunk:03d}" for chunk in range(batch_size)]
        elif self.code == "ASV":
            ids = ["-".join(PurePath(path).with_suffix("").parts[-3:]) for path in ids]
        if len(ids) != batch_size:
            raise ValueError(f"{self.code}: a batch of {batch_size} waveforms came with {len(ids)} ids: {ids!r}.")
        return [str(utterance_id) for utterance_id in ids]


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
        metrics=_ACCURACY,
        roots=(
            DataRoot(f"{_EXPERT}.datarc.speech_commands_root", "WORD/HASH_nohash_N.wav and _background_noise_/"),
            DataRoot(f"{_EXPERT}.datarc.speech_commands_test_root", "the test set's twelve class folders"),
        ),
        tools=("sox",),
        item_counts={"test": 3081},
        note="sox is needed only for files that are not 16 kHz",
    ),
    Task(
        code="IC",
        title="intent classification, Fluent Speech Commands",
        downstream="fluent_commands",
        config="ic",
        metrics=_ACCURACY,
        roots=(DataRoot(f"{_EXPERT}.datarc.file_path", "data/{train,valid,test}_data.csv and wavs/"),),
        packages={"pandas": "pandas"},
        item_counts={"test": 3793},
    ),
    Task(
        code="SID",
        title="speaker identification, VoxCeleb1",
        downstream="voxceleb1",
        config="sid",
        metrics=_ACCURACY,
        roots=(
            DataRoot(f"{_EXPERT}.datarc.file_path", "{dev,test}/wav/idXXXXX/VIDEO/NNNNN.wav"),
            DataRoot(f"{_EXPERT}.datarc.meta_data", "the split list: lines '1|2|3 idXXXXX/VIDEO/NNNNN.wav'"),
        ),
        packages={"librosa": "librosa"},
        item_counts={"test": 8251},
    ),
    Task(
        code="ER",
        title="emotion recognition, IEMOCAP",
        downstream="emotion",
        config="er",
        metrics=_ACCURACY,
        roots=(
            DataRoot(f"{_EXPERT}.datarc.root", "Session{1..5}/sentences/wav/DIALOG/UTTERANCE.wav"),
            DataRoot(
                f"{_EXPERT}.datarc.meta_data",
                "ROOT/meta_data, written by: python -m s3prl.downstream.emotion.IEMOCAP_preprocess ROOT",
            ),
        ),
        note="one fold; SUPERB reports the mean over the five folds (datarc.test_fold=fold1..fold5)",
    ),
    Task(
        code="ASR",
        title="speech recognition, LibriSpeech",
        downstream="asr",
        config="asr",
        metrics=_WER,
        roots=_ASR_ROOTS,
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
        packages=_CTC,
    ),
    Task(
        code="ASV",
        title="speaker verification, VoxCeleb1",
        downstream="sv_voxceleb1",
        config="asv",
        metrics=(Metric("eer", "EER", False),),
        roots=(
            DataRoot(f"{_EXPERT}.datarc.file_path", "{dev,test}/wav/idXXXXX/VIDEO/NNNNN.wav"),
            DataRoot(f"{_EXPERT}.datarc.dev_meta_data", "trials among dev speakers: lines '1|0 PATH PATH'"),
            DataRoot(f"{_EXPERT}.datarc.test_meta_data", "the official trials: lines '1|0 PATH PATH'"),
        ),
        id_position=0,
        best_checkpoint=None,
        packages={"librosa": "librosa", "sklearn": "scikit-learn", "joblib": "joblib"},
        tools=("sox",),
        note="a condition corrupts both sides of a trial, once per utterance",
    ),
    Task(
        code="SD",
        title="speaker diarization, Libri2Mix",
        downstream="diarization",
        config="sd",
        metrics=(Metric("frame_der", "der", False), Metric("frame_accuracy", "acc", True)),
        roots=_SD_ROOTS,
        id_position=2,
        best_checkpoint="best-states-dev.ckpt",
        packages={"pandas": "pandas", "h5py": "h5py"},
        note="frame-level DER as s3prl prints it; SUPERB's number needs dscore on scoring/predictions",
    ),
    Task(
        code="QbE",
        title="query by example, QUESST 2014 English",
        downstream="quesst14_dtw",
        config="qbe",
        metrics=(Metric("mtwv", None, True, unit="", scale=1.0),),
        roots=(DataRoot(f"{_EXPERT}.datarc.dataset_root", "Audio/ dev_queries/ eval_queries/ scoring/"),),
        splits=("eval", "dev"),
        id_position=0,
        best_checkpoint=None,
        trainable=False,
        packages={"dtw": "dtw-python", "lxml": "lxml"},
        tools=("sox",),
        note="s3prl writes benchmark.stdlist.xml; MTWV comes from the benchmark's own scoring scripts",
    ),
    Task(
        code="SE",
        title="speech enhancement, VoiceBank-DEMAND",
        downstream="enhancement_stft",
        config="se",
        metrics=_SE_METRICS,
        roots=_SE_ROOTS,
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
    near = difflib.get_close_matches(name.lower(), [key.lower() for key in known], n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    raise ValueError(f"Unknown task {name!r}.{hint} Known: {', '.join(known)}.")


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
