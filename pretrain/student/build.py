"""Building a student from its teacher, or taking one from a file or from the stage before."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import DistillConfig, StudentConfig
from robustdistiller.pretrain.student.shapes import shape_of, source_layers, student_shape, training_options
from robustdistiller.pretrain.teacher.protocol import Teacher
from robustdistiller.pretrain.teacher.targets import as_groups
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
      first hidden states (given `relative_position: keep` where the teacher has one; of a pre-norm teacher, the last of
      them behind its final norm).
    - `random`: nothing.

    Of another conv extractor than the teacher's only the first layers are copied, as far as they are the same, and not
    what comes next to it (norm and projection); of a log-mel front end nothing is. What joins frames (`squeeze`) starts
    at random. Of another width (thin and deep students) nothing behind the extractor is. Another number of heads, or
    another feed-forward width, leaves attention, or the feed-forward part, at random.

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
    student = SpeechEncoder(student_shape(shape_of(teacher), options, prediction_layers))
    if options.init != "random":
        weights, places = teacher.state_dict(), student.state_dict()
        origins = copied_weights(teacher, student, options)
        with torch.no_grad():
            for name, origin in origins.items():
                places[name].copy_(weights[origin])
    return student


def say_origins(student: SpeechEncoder, origins: Mapping[str, str]) -> None:
    """Which parts of a student start as the teacher's, and which at random, for the log.

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
    parts: dict[str, list[str]] = {"as the teacher": [], "partly as the teacher": [], "at random": []}
    for part, count in total.items():
        if copied[part] in (0, count):
            parts["as the teacher" if copied[part] else "at random"].append(part)
        else:
            parts["partly as the teacher"].append(f"{part} ({copied[part]:,} of {count:,} weights)")
    for how, names in parts.items():
        if names:
            logger.info("the student starts %s in: %s", how, ", ".join(names))


def build_student(config: DistillConfig, teacher: Teacher) -> SpeechEncoder:
    """The untrained student of a run, from its teacher or from `student.checkpoint`; random weights by `config.seed`.

    Raises:
        SettingsError: options that do not fit the teacher, or a file that cannot be read as an encoder.
    """
    options, targets = config.student, config.targets
    layers = [] if targets.layers == "auto" else targets.layers  # groups are found later
    groups = as_groups(layers, teacher.num_layers, "targets.layers", "teacher") if layers else ()
    heads = [max(group) for group in groups] if targets.match == "heads" else []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if not options.checkpoint:
            return make_student(teacher, options, heads)
        try:
            source = read_checkpoint(resolve(options.checkpoint)).build()
        except (OSError, ValueError) as error:
            raise SettingsError(f"student.checkpoint: {error}") from error
        return with_training_options(source, options, heads, teacher.width)


def with_training_options(
    source: SpeechEncoder,
    options: StudentConfig,
    prediction_layers: Sequence[int] | None = None,
    prediction_dim: int | None = None,
) -> SpeechEncoder:
    """A copy of an encoder in its own shape, with the dropout and the trained parts that a stage asks for.

    What gets no gradient is left out of training, because DDP would wait for it: the conv extractor with
    `feature_grad_mult: 0`, the factors on the conv features that pruning leaves behind with `train_feature_scale:
    false`, as in DPHuBERT's code, and with `trains: front_end` all that is behind the projection.

    Args:
        source: the encoder; it stays as it is.
        options: dropout and the like; no shape.
        prediction_layers: teacher layers to predict. Heads for others, or of another width, are dropped, and new ones
            start at random; `None` keeps what there is.
        prediction_dim: width of the teacher.
    """
    kept, changes = source.state_dict(), training_options(options)
    shape = source.config
    width = shape.prediction_dim or shape.embed_dim
    other_width = bool(prediction_layers) and prediction_dim not in (None, width)
    if prediction_layers is not None and (shape.prediction_layers != tuple(prediction_layers) or other_width):
        changes |= {
            "prediction_layers": tuple(prediction_layers),
            "prediction_dim": prediction_dim if prediction_layers else None,
        }
        kept = {name: value for name, value in kept.items() if not name.startswith("heads.")}
    with torch.random.fork_rng(devices=[]):
        student = SpeechEncoder(shape.replace(**changes))
    student.load_state_dict({**student.state_dict(), **kept})
    if options.trains == "front_end":
        student.transformer.requires_grad_(False)
    if options.feature_grad_mult == 0:
        student.extractor.requires_grad_(False)
    if student.extractor.scale is not None and not options.train_feature_scale:
        student.extractor.scale.requires_grad_(False)
    return student.train()


def copied_weights(teacher: Teacher, student: SpeechEncoder, options: StudentConfig) -> dict[str, str]:
    """Which weight of the teacher each weight of an untrained student starts as; those that are not named are random.

    Args:
        teacher: as given to :func:`make_student`.
        student: as made by it.
        options: likewise.

    Returns:
        Names of the student's weights to names of the teacher's.
    """
    if options.checkpoint or options.init == "random":
        return {}
    there, here, weights = teacher.config, student.config, teacher.state_dict()
    sources = source_layers(options.source_layers, here.num_layers, there.num_layers)
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
            fits = fits and (options.init == "truncated" or not name.startswith("transformer.norm."))
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
