"""The upstream as s3prl sees it: list of waveforms in, named hidden states out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from robustdistiller.common.names import refuse_unknown
from robustdistiller.common.settings import SettingsError, read
from robustdistiller.upstream.checkpoints import read_checkpoint
from robustdistiller.upstream.fast import accelerate
from robustdistiller.upstream.model.encoder import SpeechEncoder
from robustdistiller.upstream.model.streaming import ChunkedEncoder, ChunkOptions
from robustdistiller.upstream.pretrained.resolve import resolve


@dataclass(frozen=True)
class ExpertOptions:
    """Options of the upstream, given as keyword arguments or in the YAML file of ``-g`` / ``model_config``.

    Args:
        no_pred: leave the prediction heads out: three hidden states instead of six for a released student, and
            23.49 M parameters instead of 27.03 M.
        padding: ``"masked"``: features of an utterance do not depend on its batch; ``"reference"``: as s3prl computes
            them, see :class:`EncoderConfig`.
        feature_grad_mult: factor on the gradient into the conv extractor when s3prl fine-tunes the upstream (``-f``).
            ``None``: the checkpoint's for students; 0, which freezes it, for others, as s3prl does.
        num_heads: attention heads of each layer, for files that do not say (torchaudio's state dicts).
        chunk_frames: hear utterances in chunks of so many frames, as a stream would, frozen; see :class:`ChunkOptions`.
        left_frames: before the chunk, with ``chunk_frames``.
        look_ahead_frames: after it, with ``chunk_frames``.

    >>> ExpertOptions.from_dict({"no_preds": True})
    Traceback (most recent call last):
    ValueError: unknown upstream option 'no_preds'; did you mean 'no_pred'?
    """

    no_pred: bool = False
    padding: Literal["masked", "reference"] = "masked"
    feature_grad_mult: float | None = None
    num_heads: int | None = None
    chunk_frames: int | None = None
    left_frames: int | None = None
    look_ahead_frames: int | None = None

    @property
    def chunks(self) -> ChunkOptions | None:
        """What a frame may see, None where that is everything.

        Raises:
            ValueError: a number is out of range, context is bounded without ``chunk_frames``, or ``padding`` is
                ``"reference"`` beside it.
        """
        given = {name: getattr(self, name) for name in ("left_frames", "look_ahead_frames")}
        given = {name: value for name, value in given.items() if value is not None}
        if self.chunk_frames is not None and self.padding == "reference":
            raise ValueError("upstream option padding=reference is of whole utterances; leave it or chunk_frames out")
        if self.chunk_frames is not None:
            return ChunkOptions(self.chunk_frames, **given)
        if given:
            raise ValueError(f"upstream option {next(iter(given))} is for chunks; give chunk_frames, too")
        return None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ExpertOptions:
        """Check the names and types of ``values``.

        Raises:
            ValueError: for an unknown option, naming the nearest known one, or a value of the wrong type.
        """
        refuse_unknown(values, [field.name for field in dataclasses.fields(cls)], "upstream option")
        try:
            return read(cls, values)
        except SettingsError as error:
            raise ValueError(f"upstream option {error}") from error


class Expert(nn.Module):
    """s3prl's upstream interface over anything that encodes padded batches.

    Every utterance gets ``round(samples / 320)`` frames, the number to which s3prl trims, which can be one more than
    the convolutions give. Frames past an utterance's own repeat its last one, so that what s3prl keeps of an utterance
    does not depend on what else is in the batch. Waveforms shorter than one frame (400 samples) are padded with zeros.

    Attributes:
        names: of the hidden states.
        numbers: of the hidden states, among all that the encoder has.
        num_layers: transformer layers of the encoder.
        downsample_rate: samples per frame.
        receptive_field: samples needed for one frame.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    num_layers: int
    downsample_rate: int
    receptive_field: int

    def encode(self, waveforms: Tensor, lengths: Tensor, no_pred: bool) -> tuple[list[Tensor], Tensor]:
        """Hidden states, each ``(batch, frames, dim)``, and ``(batch,)`` int64 valid frames on the CPU.

        Args:
            waveforms: ``(batch, samples)`` float32, zero past each utterance's end.
            lengths: ``(batch,)`` int64 valid samples, on the CPU.
            no_pred: leave the predictions out.
        """
        raise NotImplementedError

    def get_downsample_rates(self, key: str | None = None) -> int:
        """Samples per frame, the same for every feature."""
        return self.downsample_rate

    def forward(self, wavs: Sequence[Tensor], no_pred: bool = False) -> dict[str, Any]:
        """Extract features.

        Args:
            wavs: waveforms at 16 kHz, each ``(samples,)``.
            no_pred: leave the predictions out of this call.

        Returns:
            ``"hidden_states"``: list of ``(batch, frames, dim)``; ``"names"``: their names;
            ``"last_hidden_state"``: the last of them; ``"paper"``: the output of the last transformer layer, where it
            is among them; ``"hidden_state_<i>"``: each one by its number, for s3prl's ``-s``; ``"frame_lengths"``:
            ``(batch,)`` int64, frames of each utterance without repetitions.

        Raises:
            ValueError: there is no waveform, or one of them is empty, not one-dimensional or of whole numbers.
        """
        waveforms, lengths = self._batch(wavs)
        states, frame_lengths = self.encode(waveforms, lengths, no_pred)
        index = self._frame_index([len(wav) for wav in wavs], frame_lengths)
        frame_lengths = frame_lengths.to(waveforms.device, non_blocking=True)
        if index is not None:
            index = index.to(waveforms.device, non_blocking=True)
            rows = torch.arange(len(wavs), device=index.device).unsqueeze(1)
            states = [state[rows, index] for state in states]
        numbered = dict(zip(self.numbers, states))
        paper = {"paper": numbered[self.num_layers]} if self.num_layers in numbered else {}
        return {
            "hidden_states": states,
            "names": self.names[: len(states)],
            "last_hidden_state": states[-1],
            **paper,
            "frame_lengths": frame_lengths,
            **{f"hidden_state_{number}": state for number, state in numbered.items()},
        }

    def _batch(self, wavs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        if len(wavs) == 0:
            raise ValueError("the list of waveforms is empty; expected at least one")
        for number, wav in enumerate(wavs):
            if wav.dim() != 1 or len(wav) == 0:
                raise ValueError(f"waveform {number} has shape {tuple(wav.shape)}; expected (samples,), not empty")
            if not wav.is_floating_point():
                raise ValueError(
                    f"waveform {number} is {wav.dtype}; expected float32 in [-1, 1], for int16 divide by 32768"
                )
        shortest = self.receptive_field
        waveforms = pad_sequence([wav.float() for wav in wavs], batch_first=True)
        if waveforms.shape[1] < shortest:
            waveforms = nn.functional.pad(waveforms, (0, shortest - waveforms.shape[1]))
        return waveforms, torch.tensor([max(len(wav), shortest) for wav in wavs])

    def _frame_index(self, num_samples: list[int], frame_lengths: Tensor) -> Tensor | None:
        """``(batch, frames)`` indices that repeat each last frame, or None where nothing is to be repeated."""
        wanted = max(round(samples / self.downsample_rate) for samples in num_samples)
        lengths = frame_lengths.tolist()
        frames = max(wanted, *lengths)
        if frames == min(lengths):
            return None
        return torch.arange(frames).minimum(frame_lengths.unsqueeze(1) - 1)


class UpstreamExpert(Expert):
    """An encoder behind s3prl's upstream interface.

    The hidden states of a student (an encoder with prediction heads) are those of s3prl's Distiller: the projected
    features, the output of each layer, the prediction of each teacher layer. Those of any other encoder follow HuBERT
    and WavLM in s3prl: the input of the first layer, then the output of each layer. The number of hidden states is
    the same in training.

    Frames and padding are those of :class:`Expert`.

    Args:
        ckpt: a model's name, see :func:`~robustdistiller.upstream.pretrained.resolve.resolve`, of any format that
            :func:`read_checkpoint` knows.
        model_config: YAML file with :class:`ExpertOptions`.
        options: the same options as keyword arguments; they win over the file.

    >>> import tempfile
    >>> from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
    >>> config = EncoderConfig.tiny(prediction_layers=(4, 8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/student.ckpt", SpeechEncoder(config), {})
    ...     upstream = UpstreamExpert(f"{folder}/student.ckpt")
    >>> upstream.names
    ('projected', 'layer_1', 'layer_2', 'prediction_4', 'prediction_8')
    >>> upstream([torch.randn(16000), torch.randn(8000)])["paper"].shape
    torch.Size([2, 50, 16])
    """

    def __init__(self, ckpt: str | Path, model_config: str | Path | None = None, **options: Any):
        super().__init__()
        settings = ExpertOptions.from_dict({**read_options(model_config), **options})
        hints = {} if settings.num_heads is None else {"num_heads": settings.num_heads}
        self.checkpoint_path = resolve(ckpt)
        checkpoint = read_checkpoint(self.checkpoint_path, **hints)
        self.is_student = checkpoint.is_student
        factor = settings.feature_grad_mult
        if factor is None:
            factor = checkpoint.config.feature_grad_mult if self.is_student else 0.0
        self.encoder = checkpoint.build(padding=settings.padding, layerdrop=0.0, feature_grad_mult=factor)
        if settings.no_pred:
            self.encoder.heads = None
        self.chunks = settings.chunks
        # What runs is no module of the upstream's: weights are counted, moved and saved once.
        self._running: list[Any] = []
        self._run(self.encoder)
        config = self.encoder.config
        self.names, self.num_layers = self.encoder.state_names(), config.num_layers
        self.numbers = tuple(range(len(self.names)))
        self.downsample_rate, self.receptive_field = config.downsample_rate, config.receptive_field

    def encode(self, waveforms: Tensor, lengths: Tensor, no_pred: bool) -> tuple[list[Tensor], Tensor]:
        """See :meth:`Expert.encode`."""
        if torch.is_grad_enabled() and self.training:
            if self.chunks is not None:
                raise ValueError("an upstream with chunk_frames cannot be fine-tuned; leave chunk_frames out")
            if self.is_accelerated:
                raise ValueError("accelerate() was called, for inference; load the upstream anew to fine-tune it")
        output = self._running[0](waveforms, lengths, predict=not no_pred)
        # As in the output, but on the CPU: reading them waits for no GPU, and shapes are enough.
        return output.upstream_states(self.encoder.config), self.encoder.frame_lengths(lengths, waveforms.shape[1])

    def accelerate(self) -> None:
        """From now on run a frozen copy of the encoder with faster kernels, where it lies on the CPU in float32.

        For those who do not fine-tune: what is done to ``encoder`` afterwards has no effect on the features.
        """
        weight = next(self.encoder.parameters())
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            self._run(accelerate(self.encoder))

    @property
    def is_accelerated(self) -> bool:
        """Whether :meth:`accelerate` had an effect."""
        return self.inference_encoder is not self.encoder

    @property
    def inference_encoder(self) -> SpeechEncoder:
        """The encoder, or the copy that :meth:`accelerate` made of it."""
        return self._running[0] if self.chunks is None else self._running[0].encoder

    def _run(self, encoder: SpeechEncoder) -> None:
        self._running[:] = [encoder if self.chunks is None else ChunkedEncoder(encoder, self.chunks)]


def read_options(path: str | Path | None) -> dict[str, Any]:
    """The options in the YAML file of ``-g`` / ``model_config``; none without a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else than options.
    """
    if path is None:
        return {}
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"model_config {path}: there is no such file; expected YAML with upstream options")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"model_config {path} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"model_config {path} holds a {type(content).__name__}; expected lines of 'option: value'")
    return content
