"""Building a student from its teacher, or taking one from a file or from the stage before."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import StudentConfig
from robustdistiller.pretrain.student.shapes import shape_of, student_shape, training_options
from robustdistiller.upstream import SpeechEncoder, read_checkpoint, resolve

logger = logging.getLogger(__name__)


def make_student(
    teacher: SpeechEncoder, options: StudentConfig, prediction_layers: Sequence[int] = ()
) -> SpeechEncoder:
    """A student built from its teacher: what fits is copied, the rest starts at random.

    What is copied, by `options.init`:

    - `distilhubert`: the extractor, the projection, the positional convolution and the layers named by
      `options.source_layers`. As in the published students there is no norm between extractor and projection, and the
      norm before the first layer starts as new. From a Base teacher that makes 23,491,200 parameters, 27,034,752 with
      three heads.
    - `truncated`: both norms too, so that with the first layers the untrained student computes exactly the teacher's
      first hidden states (given `relative_position: keep` where the teacher has one).
    - `random`: nothing.

    Of another conv extractor than the teacher's only the first layers are copied, as far as they are the same, and not
    what comes next to it (norm and projection); of a log-mel front end nothing is. What joins frames (`squeeze`) starts
    at random. Of another width (thin and deep students) nothing behind the extractor
    is. Another number of heads, or another feed-forward width, leaves attention, or the feed-forward part, at random.

    Args:
        teacher: in any configuration; one that is no `SpeechEncoder` gives its depth and width only.
        options: shape and start.
        prediction_layers: teacher layers to predict with heads, from 0 (input of the first layer) to the last; none
            makes a student without heads. Heads start at random.

    Returns:
        The student, in train mode. What is random comes from PyTorch's global generator.

    Raises:
        SettingsError: layers that the teacher does not have, other samples per frame, or widths that do not fit.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> teacher = SpeechEncoder(EncoderConfig.tiny(num_layers=4))
    >>> student = make_student(teacher, StudentConfig(num_layers=1), prediction_layers=[2, 4])
    >>> student.config.num_layers, student.config.prediction_layers, student.config.feature_norm
    (1, (2, 4), False)
    >>> thin = make_student(teacher, StudentConfig(num_layers=None, embed_dim=8, ffn_dim=32), [4])
    >>> thin.config.embed_dim, thin.config.prediction_dim, thin.config.num_layers
    (8, 16, 4)
    """
    if options.init != "random" and not isinstance(teacher, SpeechEncoder):
        raise SettingsError(
            f"student.init: found {options.init}, which copies from the teacher, and a {type(teacher).__name__} has no "
            "layers like a student's; set student.init=random"
        )
    shape, sources = student_shape(shape_of(teacher), options, prediction_layers)
    student = SpeechEncoder(shape)
    if options.init != "random":
        weights, places = teacher.state_dict(), student.state_dict()
        origins = copied_weights(teacher, student, sources, options.init == "truncated")
        with torch.no_grad():
            for name, origin in origins.items():
                places[name].copy_(weights[origin])
    return student


def say_origins(student: SpeechEncoder, origins: Mapping[str, str]) -> None:
    """Which parts of a student start as the teacher's, and which at random; each weight by its name at level DEBUG.

    Args:
        student: untrained.
        origins: the teacher's weight by the student's, see :func:`copied_weights`.
    """
    total, copied = Counter(), Counter()
    for name, weight in student.state_dict().items():
        words = name.split(".")
        part = ".".join(words[: 3 if "layers" in words else 2 if words[0] == "transformer" else 1])
        total[part] += weight.numel()
        copied[part] += weight.numel() if name in origins else 0
        logger.debug("%s starts %s", name, f"as the teacher's {origins[name]}" if name in origins else "at random")
    parts: dict[str, list[str]] = {"as the teacher": [], "partly as the teacher": [], "at random": []}
    for part, count in total.items():
        if copied[part] in (0, count):
            parts["as the teacher" if copied[part] else "at random"].append(part)
        else:
            parts["partly as the teacher"].append(f"{part} ({copied[part]:,} of {count:,} weights)")
    for how, names in parts.items():
        if names:
            logger.info("the student starts %s in: %s", how, ", ".join(names))


def load_student(options: StudentConfig, prediction_layers: Sequence[int], prediction_dim: int) -> SpeechEncoder:
    """The student in `options.checkpoint`, to be trained on in its own shape; see :func:`adopt_student`.

    Raises:
        SettingsError: the file does not exist or cannot be read as an encoder.

    >>> import tempfile
    >>> from robustdistiller.upstream import EncoderConfig, save_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/student.ckpt", SpeechEncoder(EncoderConfig.tiny()), {})
    ...     student = load_student(StudentConfig(checkpoint=f"{folder}/student.ckpt", dropout=0.0), [2, 4], 48)
    >>> student.config.prediction_layers, student.config.dropout
    ((2, 4), 0.0)
    """
    try:
        source = read_checkpoint(resolve(options.checkpoint)).build()
    except (OSError, ValueError) as error:
        raise SettingsError(f"student.checkpoint: {error}") from error
    return adopt_student(source, options, prediction_layers, prediction_dim)


def adopt_student(
    source: SpeechEncoder, options: StudentConfig, prediction_layers: Sequence[int], prediction_dim: int
) -> SpeechEncoder:
    """A copy of an encoder, such as the pruned student of the stage before, to be trained on in its own shape.

    Its heads are kept if they predict `prediction_layers`; otherwise they are dropped, and new ones start at random.

    Args:
        source: the encoder; it stays as it is.
        options: dropout and the like; no shape.
        prediction_layers: teacher layers to predict; none makes a student without heads.
        prediction_dim: width of the teacher.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> source = SpeechEncoder(EncoderConfig.tiny(prediction_layers=(2, 4)))
    >>> adopt_student(source, StudentConfig(), (), 16).heads is None
    True
    """
    layers = tuple(prediction_layers)
    keeps_heads = source.config.prediction_layers == layers
    heads = {} if keeps_heads else {"prediction_layers": layers, "prediction_dim": prediction_dim if layers else None}
    student = SpeechEncoder(source.config.replace(**training_options(options), **heads))
    weights = source.state_dict()
    kept = {name: value for name, value in weights.items() if keeps_heads or not name.startswith("heads.")}
    student.load_state_dict({**student.state_dict(), **kept})
    return student


def freeze(student: SpeechEncoder, options: StudentConfig) -> None:
    """Leave out of training what `options` says: a parameter that gets no gradient would be waited for by DDP.

    The conv extractor where no gradient reaches it (`feature_grad_mult: 0`); the factors on the conv features that
    pruning leaves behind where they are to stay (`train_feature_scale: false`, as in DPHuBERT's code).

    >>> from robustdistiller.upstream import EncoderConfig
    >>> student = SpeechEncoder(EncoderConfig.tiny(feature_scale=True))
    >>> freeze(student, StudentConfig(train_feature_scale=False))
    >>> [name for name, weight in student.named_parameters() if not weight.requires_grad]
    ['extractor.scale']
    """
    if options.feature_grad_mult == 0:
        student.extractor.requires_grad_(False)
    if student.extractor.scale is not None and not options.train_feature_scale:
        student.extractor.scale.requires_grad_(False)


def copied_weights(teacher: SpeechEncoder, student: SpeechEncoder, sources: Sequence[int], with_norm: bool) -> dict:
    """Which weight of the teacher each of the student's starts from: names of the student to names of the teacher.

    Args:
        teacher: as given to :func:`make_student`.
        student: as made by it.
        sources: teacher layer, from 1, of each student layer.
        with_norm: whether the norm before the first layer is among them.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> teacher = SpeechEncoder(EncoderConfig.tiny(num_layers=3))
    >>> student = make_student(teacher, StudentConfig(num_layers=1, source_layers=(3,)))
    >>> copied_weights(teacher, student, [3], with_norm=False)["transformer.layers.0.up.weight"]
    'transformer.layers.2.up.weight'
    """
    there, here, weights = teacher.config, student.config, teacher.state_dict()
    same_kind = here.front_end == there.front_end
    same = [same_kind and one == other for one, other in zip(here.conv_layers, there.conv_layers)]
    first_other = min((index for index, equal in enumerate(same) if not equal), default=len(same))
    pairs = {}
    for name, value in student.state_dict().items():
        part, *_ = name.split(".", 1)
        origin = name
        if name.startswith("extractor.layers."):
            fits = int(name.split(".")[2]) < first_other
        elif part in ("extractor", "feature_norm"):
            fits = same_kind and here.conv_layers == there.conv_layers
        elif part == "projection":
            fits = same_kind and here.conv_layers == there.conv_layers and here.embed_dim == there.embed_dim
        else:
            fits = part == "transformer" and here.embed_dim == there.embed_dim
            fits = fits and (with_norm or not name.startswith("transformer.norm."))
        if name.startswith("transformer.layers."):
            layer, _, rest = name.removeprefix("transformer.layers.").partition(".")
            source = sources[int(layer)]
            origin = f"transformer.layers.{source - 1}.{rest}"
            same_heads = here.heads[int(layer)] == there.heads[source - 1]
            if rest.startswith("attention."):
                fits = fits and same_heads and here.width_per_head == there.width_per_head
        if fits and origin in weights and weights[origin].shape == value.shape:
            pairs[name] = origin
    return pairs
