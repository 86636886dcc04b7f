"""Features of audio files on disk: what ``robustdistiller extract`` does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.precision import without_tf32
from robustdistiller.upstream import checkpoint_digest, resolve
from robustdistiller.upstream.device import usable_device
from robustdistiller.upstream.features.folder import FORMATS, FeatureFolder, write_features
from robustdistiller.upstream.features.layers import LayerChoice, LayerReader, choose_layers
from robustdistiller.upstream.s3prl.entries import open_entry
from robustdistiller.upstream.s3prl.expert import UpstreamExpert
from robustdistiller.upstream.s3prl.whisper_expert import WhisperExpert

logger = logging.getLogger(__name__)

DTYPES = ("float32", "float16")
_READERS = 4  # threads; they decode while the network computes


@dataclass(frozen=True)
class AudioReader:
    """How audio files are read; `robustdistiller.acoustics` has these functions.

    Attributes:
        info: gives, for a path, an object with ``sample_rate_hz`` and ``duration_s``.
        load: gives, for a path and a sampling rate in Hz, the waveform ``(samples,)``.
    """

    info: Callable[[Path], Any]
    load: Callable[[Path, int], Tensor]


@dataclass
class ExtractionReport:
    """What :func:`extract` did.

    Attributes:
        manifest: the manifest's path.
        written: recordings whose features were written.
        skipped: recordings whose features were there already.
        failed: file and reason of each recording that has no features.
        resampled: number of files by their sampling rate in Hz, of those not at 16 kHz.
    """

    manifest: Path
    written: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    resampled: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Recording:
    name: str
    path: Path
    sample_rate_hz: int
    duration_s: float


def extract(
    upstream: str | Path,
    recordings: Mapping[str, Path],
    out_dir: str | Path,
    reader: AudioReader,
    layer: str = "all",
    head: str | Path | None = None,
    format_: str = "npy",
    dtype: str = "float32",
    device: str = "auto",
    batch_s: float = 60.0,
    progress: bool = False,
    overwrite: bool = False,
) -> ExtractionReport:
    """Write the features of recordings, one file each, and a manifest. Finished ones are not computed again.

    A recording of n samples gets the frames that the encoder makes of it, 49 for one second (Whisper 50); s3prl, which
    rounds n / 320, repeats the last one where that is one more. Features do not depend on what is computed together.

    Args:
        upstream: a model's name, see :func:`~robustdistiller.upstream.resolve`.
        recordings: audio files by name.
        out_dir: folder for the features (named as the recordings), ``manifest.jsonl`` and ``extraction.json``.
        reader: how they are read.
        layer: see :func:`~robustdistiller.upstream.features.layers.choose_layers`.
        head: for ``layer="weighted"``: checkpoint file of a head that s3prl trained.
        format_: ``"npy"`` or ``"safetensors"``.
        dtype: ``"float32"`` or ``"float16"`` storage.
        device: such as ``"cuda:1"``; ``"auto"`` is the first GPU if there is one, else the CPU.
        batch_s: seconds of audio computed together, padding included.
        progress: show a progress bar.
        overwrite: begin anew in a folder that holds features of other settings.

    Raises:
        ValueError: an option is unusable, or the folder holds features of other settings.
        FileNotFoundError: the checkpoint is missing.

    >>> import soundfile, tempfile
    >>> from robustdistiller.acoustics import audio_info, load_audio
    >>> from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
    >>> config = EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/teacher.ckpt", SpeechEncoder(config), {})
    ...     soundfile.write(f"{folder}/a.wav", [0.1] * 8000, 8000)
    ...     reader = AudioReader(audio_info, load_audio)
    ...     recordings = {"a": Path(folder, "a.wav")}
    ...     report = extract(f"{folder}/teacher.ckpt", recordings, f"{folder}/features", reader, layer="1")
    >>> report.written, report.resampled
    (1, {8000: 1})
    """
    _check(format_, dtype, batch_s)
    checkpoint = resolve(upstream)
    model = (
        cast("UpstreamExpert | WhisperExpert", open_entry("robustdistiller_local", checkpoint))
        .eval()
        .to(usable_device(device))
    )
    if isinstance(model, UpstreamExpert):
        model.accelerate()
    choice = choose_layers(str(layer), model.names, head)
    digest = checkpoint_digest(checkpoint)
    _check_widths(model, choice, format_)
    settings = {
        "checkpoint_sha256": digest,
        "layers": choice.names,
        "weights": choice.weights,
        "normalize": choice.normalize,
        "format": format_,
        "dtype": dtype,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "samples_per_frame": model.downsample_rate,
    }
    folder = FeatureFolder(Path(out_dir).expanduser(), settings, overwrite)
    report = ExtractionReport(folder.manifest)
    todo = _headers(folder, recordings, reader, report)
    if todo:
        run = _Run(folder, LayerReader(model, choice), reader, settings, report)
        total = sum(recording.duration_s for recording in todo)
        with tqdm(total=round(total), unit="s", desc="audio", disable=None if progress else True) as bar:
            for batch, seconds in run.process(_batches(todo, batch_s)):
                folder.add(batch)
                report.written += len(batch)
                bar.update(round(seconds))
    folder.finish()
    return report


def _check(format_: str, dtype: str, batch_s: float) -> None:
    if format_ not in FORMATS:
        raise ValueError(f"format {format_!r}: expected one of {', '.join(FORMATS)}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    if not batch_s > 0:
        raise ValueError(f"batch_s is {batch_s}; expected seconds above 0")


def _check_widths(model: UpstreamExpert | WhisperExpert, choice: LayerChoice, format_: str) -> None:
    heads = [name for name in choice.needed if name.startswith("prediction_")]
    if not isinstance(model, UpstreamExpert) or not heads or len(heads) == len(choice.needed):
        return
    config = model.encoder.config
    other = config.prediction_dim or config.embed_dim
    if other == config.embed_dim:
        return
    if choice.weights is not None:
        raise ValueError(f"the hidden states are {config.embed_dim} wide, the predictions {other}: there is no sum")
    if format_ == "npy":
        raise ValueError(
            f"the hidden states are {config.embed_dim} wide, the predictions {other}, which do not fit one array: "
            "choose the format safetensors, or one layer"
        )


def _headers(
    folder: FeatureFolder, recordings: Mapping[str, Path], reader: AudioReader, report: ExtractionReport
) -> list[_Recording]:
    """What is still to do, from the files' headers; what cannot be read is noted."""
    todo = []
    for name, path in recordings.items():
        if folder.is_done(name, path):
            report.skipped += 1
            continue
        try:
            info = reader.info(path)
        except (ValueError, OSError) as error:
            report.failed.append((path, str(error)))
            continue
        todo.append(_Recording(name, path, info.sample_rate_hz, info.duration_s))
    return todo


def _batches(recordings: Sequence[_Recording], batch_s: float) -> list[list[_Recording]]:
    """Recordings of similar length together; the longest first, so that a lack of memory shows at once."""
    batches: list[list[_Recording]] = []
    for recording in sorted(recordings, key=lambda r: (-r.duration_s, r.name)):
        if batches and (len(batches[-1]) + 1) * batches[-1][0].duration_s <= batch_s:
            batches[-1].append(recording)
        else:
            batches.append([recording])
    return batches


class _Run:
    def __init__(
        self,
        folder: FeatureFolder,
        layers: LayerReader,
        audio: AudioReader,
        settings: dict[str, Any],
        report: ExtractionReport,
    ):
        self.folder, self.layers, self.audio, self.settings, self.report = folder, layers, audio, settings, report

    def process(self, batches: list[list[_Recording]]) -> Iterator[tuple[list[dict[str, Any]], float]]:
        """Manifest entries and seconds of audio of one batch after another; the next one is being decoded."""
        with ThreadPoolExecutor(_READERS) as pool:
            coming = self._load(pool, batches[0])
            for index, batch in enumerate(batches):
                loading = coming
                coming = self._load(pool, batches[index + 1]) if index + 1 < len(batches) else []
                readable = self._decoded(batch, loading)
                yield self._compute(readable) if readable else [], sum(r.duration_s for r in batch)

    def _load(self, pool: ThreadPoolExecutor, batch: list[_Recording]) -> list[Future[Tensor]]:
        return [pool.submit(self.audio.load, recording.path, SAMPLE_RATE_HZ) for recording in batch]

    def _decoded(self, batch: list[_Recording], loading: list[Future[Tensor]]) -> list[tuple[_Recording, Tensor]]:
        readable = []
        for recording, future in zip(batch, loading):
            try:
                readable.append((recording, future.result()))
            except (ValueError, OSError) as error:
                self.report.failed.append((recording.path, str(error)))
                continue
            self._note_rate(recording)
        return readable

    def _note_rate(self, recording: _Recording) -> None:
        rate, counts = recording.sample_rate_hz, self.report.resampled
        if rate == SAMPLE_RATE_HZ:
            return
        if not counts:
            said = "%s is at %d Hz: resampled to %d Hz, as are all others at another rate"
            logger.warning(said, recording.path, rate, SAMPLE_RATE_HZ)
        counts[rate] = counts.get(rate, 0) + 1

    def _compute(self, batch: list[tuple[_Recording, Tensor]]) -> list[dict[str, Any]]:
        try:
            with without_tf32():
                features = self.layers([waveform for _, waveform in batch])
        except torch.OutOfMemoryError:
            if len(batch) > 1:
                return [entry for one in batch for entry in self._compute([one])]
            self.report.failed.append((batch[0][0].path, "it is too long for the device's memory; cut it into parts"))
            return []
        written = (self._write(recording, wave, value) for (recording, wave), value in zip(batch, features))
        return [entry for entry in written if entry is not None]

    def _write(self, recording: _Recording, waveform: Tensor, features: dict[str, Tensor]) -> dict[str, Any] | None:
        output = f"{recording.name}{FORMATS[self.settings['format']]}"
        try:
            write_features(self.folder.path / output, features, self.settings["format"], self.settings["dtype"])
        except ValueError as error:
            self.report.failed.append((recording.path, str(error)))
            return None
        frames, dim = next(iter(features.values())).shape
        return {
            "name": recording.name,
            "audio": str(recording.path.absolute()),
            "output": output,
            "frames": frames,
            "dim": dim,
            "samples": len(waveform),
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "source_sample_rate_hz": recording.sample_rate_hz,
            "layers": list(features),
            "checkpoint_sha256": self.settings["checkpoint_sha256"],
        }
