"""The shape of a student: the teacher's, with what the settings say otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import StudentConfig
from robustdistiller.upstream import EncoderConfig, SpeechEncoder

ConvLayers = tuple[tuple[int, int, int], ...]


def extractor(name: str, width: int) -> ConvLayers:
    """Convolutions of front ends that are cheaper than wav2vec 2.0's, with the same frames: 400 samples every 320.

    Args:
        name: `squeezed`, of ARMHuBERT (arXiv 2305.11685) and STaRHuBERT (arXiv 2312.09040), where the last layers are
            as wide as the transformer, so that no projection is needed; `sew`, of SEW (arXiv 2109.06870); `log_mel`,
            on log-mel spectra, as wide as the transformer.
        width: of the student's transformer.
    """
    if name == "log_mel":
        return ((width, 3, 1), (width, 3, 2))
    if name == "squeezed":
        return ((128, 10, 5), (256, 1, 1), *((256, 3, 2),) * 4, (width, 1, 1), *((width, 2, 2),) * 2)
    mixed = ((128, 3, 2), (128, 1, 1)) * 2 + ((256, 3, 2), (256, 1, 1)) * 2 + ((512, 2, 2), (512, 1, 1)) * 2
    return ((64, 10, 5), *mixed)


def shape_of(teacher: SpeechEncoder | Any) -> EncoderConfig:
    """The shape that a student takes over from a teacher of whatever kind.

    Of a :class:`SpeechEncoder` its own. For others, such as Whisper's encoder, HuBERT's with as many layers, as wide,
    heads of width 64 and feed-forward parts four times as wide as the transformer.
    """
    if isinstance(teacher, SpeechEncoder):
        return teacher.config
    width = teacher.width
    return EncoderConfig.hubert_base(
        embed_dim=width, num_layers=teacher.num_layers, num_heads=max(width // 64, 1), ffn_dim=4 * width
    )


def student_shape(
    teacher: EncoderConfig, options: StudentConfig, prediction_layers: Sequence[int] = ()
) -> EncoderConfig:
    """The student's shape.

    Args:
        teacher: shape of the teacher.
        options: what is not set in them is the teacher's.
        prediction_layers: teacher layers to predict with heads, from 0 (input of the first layer); none makes no heads.

    Raises:
        SettingsError: layers that the teacher does not have, other samples per frame, or widths that do not fit.
    """
    depth = teacher.num_layers
    num_layers = depth if options.num_layers is None else options.num_layers
    missing = [layer for layer in prediction_layers if not 0 <= layer <= depth]
    if missing:
        raise SettingsError(f"prediction_layers: the teacher has layers 0 to {depth}, found {missing}")
    sources = source_layers(options.source_layers, num_layers, depth)

    def chosen(per_layer: Any) -> Any:
        return tuple(per_layer[source - 1] for source in sources) if isinstance(per_layer, tuple) else per_layer

    width = options.embed_dim or teacher.embed_dim
    changes = {
        "num_layers": num_layers,
        "embed_dim": width,
        "num_heads": options.num_heads or chosen(teacher.num_heads),
        "ffn_dim": options.ffn_dim or chosen(teacher.ffn_dim),
        "position_bias_heads": chosen(teacher.position_bias_heads),
        "squeeze": options.squeeze or teacher.squeeze,
        "squeeze_by": options.squeeze_by if options.squeeze else teacher.squeeze_by,
        "expand_by": options.expand_by if options.squeeze else teacher.expand_by,
        "attention_reuse": _attention_reuse(options.attention_reuse, teacher, sources),
        "feature_norm": options.feature_norm,
        "prediction_layers": tuple(prediction_layers),
        "prediction_dim": teacher.embed_dim if prediction_layers else None,
        **training_options(options),
    }
    if options.feature_norm is None:
        changes["feature_norm"] = teacher.feature_norm and options.init == "truncated"
    if options.conv_layers is not None:
        given = options.conv_layers
        changes["conv_layers"] = extractor(given, width) if isinstance(given, str) else given
        changes["front_end"] = "log_mel" if given == "log_mel" else "conv"
        if given == "log_mel":
            # A gain is the same step in every band. A norm over time takes it out, and with it the mean spectrum, which
            # tells voices and vowels; filters that sum to zero take it out alone. So each has half of the channels.
            changes |= {"normalize_waveform": False, "conv_norm": "half_group"}
        elif teacher.conv_norm == "half_group":
            changes["conv_norm"] = "group"
    if options.conv_layers is not None or options.embed_dim is not None:
        changes["projection"] = None
    if options.num_heads is not None or options.embed_dim is not None:
        changes |= {"head_dim": None, "position_bias_heads": None}
    if options.relative_position == "drop":
        changes |= {"relative_position": False, "gated_relative_position": False, "position_bias_heads": None}
    if options.first_state != "auto":
        changes["first_state"] = options.first_state
    try:
        shape = teacher.replace(**changes)
    except ValueError as error:
        raise SettingsError(f"student: {error}") from error
    if shape.downsample_rate != teacher.downsample_rate:
        raise SettingsError(
            f"student.conv_layers: found strides that make a frame every {shape.downsample_rate} samples, expected "
            f"{teacher.downsample_rate} as the teacher has; change a stride"
        )
    return shape


def training_options(options: StudentConfig) -> dict[str, Any]:
    """What training decides of an encoder of whatever shape, as options of `EncoderConfig`."""
    names = ("feature_grad_mult", "feature_dropout", "dropout", "attention_dropout", "activation_dropout")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return {**given, "layerdrop": 0.0, "padding": "masked"}


def source_layers(chosen: str | Sequence[int], num_layers: int, depth: int) -> list[int]:
    """The teacher layer, from 1, that each layer of the student starts from."""
    most = (depth + 1) // 2 if chosen == "every_other" else depth
    if num_layers > most and isinstance(chosen, str):
        every_other = f"every other of the teacher's {depth} layers"
        kept = every_other if chosen == "every_other" else "the teacher's first layers"
        raise SettingsError(
            f"student.num_layers: found {num_layers}, and starting from {kept} makes at most {most}; give less, or "
            "list the layers to start from in student.source_layers, one of them twice"
        )
    if isinstance(chosen, str):
        return list(range(1, num_layers + 1) if chosen == "first" else range(1, 2 * num_layers, 2))
    if len(chosen) != num_layers or not all(1 <= layer <= depth for layer in chosen):
        raise SettingsError(
            f"student.source_layers: expected first, every_other, or a list of {num_layers} teacher layers from 1 to "
            f"{depth}, found {list(chosen)}"
        )
    return list(chosen)


def _attention_reuse(chosen: Sequence[int] | None, teacher: EncoderConfig, sources: Sequence[int]) -> tuple[int, ...]:
    """Layers of the student, from 0, without queries and keys."""
    if chosen is None:
        return tuple(index for index, source in enumerate(sources) if source - 1 in teacher.attention_reuse)
    if not all(2 <= layer <= len(sources) for layer in chosen):
        raise SettingsError(
            f"student.attention_reuse: expected layers from 2 to {len(sources)}, which have one before them, found "
            f"{list(chosen)}"
        )
    return tuple(layer - 1 for layer in chosen)
