"""Files that say too little, too much or nonsense: one kind of error, no guess unsaid, nothing overridden."""

import json
import logging
import re

import pytest
import torch

from robustdistiller.upstream import (
    CheckpointError,
    EncoderConfig,
    SpeechEncoder,
    UpstreamExpert,
    checkpoint_digest,
    export_checkpoint,
    load_encoder,
    mini_teacher,
    read_checkpoint,
    save_checkpoint,
)
from robustdistiller.upstream.checkpoints.formats import TARGETS
from robustdistiller.upstream.checkpoints.formats.base import Checkpoint, NotExportable
from robustdistiller.upstream.checkpoints.inspection import inspect_checkpoint
from robustdistiller.upstream.checkpoints.parameter_names import fairseq_name, torchaudio_name

SHAPE = {"embed_dim": 24, "num_layers": 2, "num_heads": 4, "ffn_dim": 32, "position_kernel": 8, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), (16, 8, 4))}
TORCHAUDIO = SHAPE | {"projection": True, "conv_layers": ((16, 10, 5), (16, 3, 2))}


def make(**options):
    torch.manual_seed(2)
    return SpeechEncoder(EncoderConfig(**{**SHAPE, **options})).eval()


def first_version(path, encoder, **changes):
    """A file as the first version of the format had them."""
    content = {"format": "robustdistiller", "format_version": 1, "config": encoder.config.to_dict(), "metadata": {}}
    torch.save({**content, "state_dict": encoder.state_dict(), **changes}, path)
    return path


# Our own format


def test_own_files_are_recognised_by_content_and_equal_weights_give_equal_bytes(tmp_path):
    encoder = make()
    for name in ("a.ckpt", "b.safetensors", "c", "model.safetensors"):
        save_checkpoint(tmp_path / name, encoder, {"recipe": "a", "teacher": {"file": "b"}, "step": 3})
    assert len({checkpoint_digest(file) for file in tmp_path.iterdir()}) == 1
    (tmp_path / "config.json").write_text("{}")  # what lies beside it does not make it Hugging Face's
    for name in ("a.ckpt", "b.safetensors", "c", "model.safetensors"):
        assert read_checkpoint(tmp_path / name).format == "robustdistiller"
    from safetensors.torch import load_file

    assert load_file(tmp_path / "a.ckpt").keys() == encoder.state_dict().keys()


def test_files_of_the_first_version_are_read(tmp_path):
    encoder = make(prediction_layers=(4,))
    found = read_checkpoint(first_version(tmp_path / "a.ckpt", encoder, metadata={"step": 3}))
    assert found.config == encoder.config and found.metadata == {"step": 3}
    assert all(torch.equal(found.state_dict[name], value) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("metadata", [{"a": torch.ones(2)}, torch.ones(2), [1], 3, {"when": {1, 2}}, None, "text"])
def test_metadata_of_any_kind_do_no_harm_later(metadata, tmp_path):
    path = first_version(tmp_path / "a.ckpt", make(), metadata=metadata)
    found = read_checkpoint(path)
    assert found.metadata == {} and found.guesses == ("the metadata hold more than JSON values and are left out",)
    for target in ("native", "huggingface"):
        export_checkpoint(path, tmp_path / target, target)
    assert inspect_checkpoint(path).readable


# Errors are of one kind


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("head_dim", -4),
        ("head_dim", 0),
        ("prediction_dim", -1),
        ("prediction_inner_dim", 0),
        ("num_buckets", 2**61),
        ("num_buckets", 2),
        ("max_distance", 80),
        ("position_kernel", 2**61),
        ("ffn_dim", 2**61),
        ("ffn_dim", [2**61, 4]),
        ("num_heads", [0, 0]),
        ("num_heads", 10**9),
        ("conv_layers", [[16, 2**61, 5], [16, 8, 4]]),
        ("embed_dim", 2.5),
        ("embed_dim", "24"),
        ("normalize_eps", -1.0),
        ("dropout", float("nan")),
        ("prediction_layers", 4),
        ("padding", ["masked"]),
        ("head_dim", torch.ones(2)),
    ],
)
def test_options_out_of_range(option, value, tmp_path):
    relative = {"relative_position": True, "gated_relative_position": True, "num_buckets": 320, "max_distance": 800}
    config = {**make(**relative).config.to_dict(), "prediction_layers": [4], option: value}
    path = first_version(tmp_path / "a.ckpt", make(), config=config)
    with pytest.raises(CheckpointError, match=r"a\.ckpt: "):
        read_checkpoint(path)
    found = inspect_checkpoint(path)
    assert not found.readable and found.format == "robustdistiller"


@pytest.mark.parametrize("change", [{"format_version": torch.ones(2)}, {"format_version": "1"}, {"state_dict": 3}])
def test_other_nonsense_of_own_files(change, tmp_path):
    with pytest.raises(CheckpointError):
        read_checkpoint(first_version(tmp_path / "a.ckpt", make(), **change))


@pytest.mark.parametrize("path", ["~nobody-here/a.pt", "a\0b", "", "/"])
def test_paths_that_are_none(path):
    assert inspect_checkpoint(path).error
    with pytest.raises((CheckpointError, FileNotFoundError)):
        read_checkpoint(path)


def test_an_override_that_changes_the_shape(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", make(), {})
    with pytest.raises(CheckpointError, match=r"a\.ckpt: the weights do not fit .*unknown: transformer\.layers\.1"):
        load_encoder(tmp_path / "a.ckpt", num_layers=1)
    with pytest.raises(CheckpointError, match="the weights do not fit"):
        read_checkpoint(tmp_path / "a.ckpt").build(num_layers=1)


# Attention heads


def test_a_number_of_heads_that_contradicts_the_file(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", make(), {})
    assert load_encoder(tmp_path / "a.ckpt", num_heads=4).config.num_heads == 4
    with pytest.raises(CheckpointError, match="num_heads is 6, but the file has 4 attention heads of a layer"):
        load_encoder(tmp_path / "a.ckpt", num_heads=6)
    with pytest.raises(CheckpointError, match="num_heads is 6"):
        UpstreamExpert(tmp_path / "a.ckpt", num_heads=6)
    for value in ("4", 0, 4.0, [4, 4]):
        with pytest.raises(CheckpointError, match="expected a positive integer"):
            load_encoder(tmp_path / "a.ckpt", num_heads=value)


def test_the_number_of_heads_of_a_pruned_file_is_that_before_it_was_pruned(tmp_path):
    pruned = SpeechEncoder(EncoderConfig(**{**TORCHAUDIO, "num_heads": (4, 2), "head_dim": 6}))
    torch.save({torchaudio_name(k, pruned.config): v for k, v in pruned.state_dict().items()}, tmp_path / "a.pt")
    found = load_encoder(tmp_path / "a.pt", num_heads=4)
    assert found.config.heads == (4, 2)


# Guesses


def test_guesses_are_logged_once_and_listed(tmp_path, caplog):
    encoder = SpeechEncoder(EncoderConfig(**{**TORCHAUDIO, "embed_dim": 64, "num_heads": 1}))
    torch.save({torchaudio_name(k, encoder.config): v for k, v in encoder.state_dict().items()}, tmp_path / "a.pt")
    with caplog.at_level(logging.WARNING):
        found = load_encoder(tmp_path / "a.pt")
    assert found.config.heads == (1, 1)
    (record,) = caplog.records
    assert (
        "there are 1 attention heads, each 64 wide" in record.message
        and "the input is not normalised" in record.message
    )
    assert inspect_checkpoint(tmp_path / "a.pt").guesses == read_checkpoint(tmp_path / "a.pt").guesses
    assert not any("attention heads" in guess for guess in read_checkpoint(tmp_path / "a.pt", num_heads=1).guesses)


def test_armhubert_guesses_its_heads(tmp_path):
    encoder = make(num_heads=12, attention_reuse=(1,), conv_layers=((16, 10, 5), (16, 3, 2)))
    weights = {"student_model." + fairseq_name(k, encoder.config): v for k, v in encoder.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "a.ckpt")
    found = read_checkpoint(tmp_path / "a.ckpt")
    assert found.config.heads == (12, 12) and "12 attention heads, as in the published students" in found.guesses[0]
    assert read_checkpoint(tmp_path / "a.ckpt", num_heads=12).guesses == ()


def test_a_checkpoint_of_dphuberts_training_says_what_to_run(tmp_path):
    """It has a student_model, as ARMHuBERT's has, but under torchaudio's names."""
    encoder = make(**TORCHAUDIO)
    weights = {"student_model." + torchaudio_name(k, encoder.config): v for k, v in encoder.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last.ckpt: it is a checkpoint of DPHuBERT's training.*prune.py"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_an_exported_file_is_told_its_upstream(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07" * 20)
    with pytest.raises(CheckpointError, match=r"a.onnx cannot be read .*run by the upstream robustdistiller_onnx"):
        read_checkpoint(tmp_path / "a.onnx")


def test_whole_objects_are_called_by_their_class(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match=r"module.pt holds a torch.nn.modules.linear.Linear; expected a check"):
        read_checkpoint(tmp_path / "module.pt")
    weights = make(**TORCHAUDIO).state_dict() | {"projection.bias": torch.nn.Linear(2, 2)}
    with pytest.raises(CheckpointError, match=r"projection.bias is a torch.nn.modules.linear.Linear, expected a tens"):
        read_checkpoint(first_version(tmp_path / "a.ckpt", make(**TORCHAUDIO), state_dict=weights))


def test_normalisation_that_a_folder_does_not_say_is_a_guess(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", make(projection=True), {})
    folder = export_checkpoint(tmp_path / "a.ckpt", tmp_path / "hf", "huggingface").path
    assert read_checkpoint(folder).guesses == ()
    (folder / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json does not say do_normalize" in read_checkpoint(folder).guesses[0]
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16000}))
    assert len(read_checkpoint(folder).guesses) == 1


@pytest.mark.parametrize("part", ["feature_extractor", "audio_processor"])
@pytest.mark.parametrize("alone", [None, True, False])
@pytest.mark.parametrize("nested", [None, True, False])
def test_normalisation_that_transformers_5_nests_in_another_file(nested, alone, part, tmp_path):
    """As it saves a processor, the feature extractor together with the tokenizer of a fine-tuned model."""
    from transformers import Wav2Vec2FeatureExtractor

    save_checkpoint(tmp_path / "a.ckpt", make(projection=True), {})
    folder = export_checkpoint(tmp_path / "a.ckpt", tmp_path / "hf", "huggingface").path
    (folder / "preprocessor_config.json").unlink()
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000, "feature_size": 1}
    before = checkpoint_digest(folder)
    if alone is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps({**extractor, "do_normalize": alone}))
    kept = checkpoint_digest(folder)
    together = {"processor_class": "Wav2Vec2Processor"}
    (folder / "processor_config.json").write_text(json.dumps(together))
    assert checkpoint_digest(folder) == kept  # transformers 4 says nothing of the input there
    if nested is not None:
        together[part] = {**extractor, "do_normalize": nested}
        (folder / "processor_config.json").write_text(json.dumps(together))
    found = read_checkpoint(folder)
    if nested is None and alone is None:
        assert len(found.guesses) == 1 and checkpoint_digest(folder) == before
        return
    theirs = Wav2Vec2FeatureExtractor.from_pretrained(folder).do_normalize
    assert (found.config.normalize_waveform, found.guesses) == (theirs, ()) and checkpoint_digest(folder) != before


def test_what_files_say_is_no_guess(tmp_path):
    for number, options in enumerate(({}, {"feature_norm": False, "prediction_layers": (4,)})):
        save_checkpoint(tmp_path / f"{number}.ckpt", make(**options), {})
        assert read_checkpoint(tmp_path / f"{number}.ckpt").guesses == ()
        exported = export_checkpoint(tmp_path / f"{number}.ckpt", tmp_path / f"{number}.pt", "s3prl")
        assert read_checkpoint(exported.path).guesses == ()


# What is a student


def test_a_student_is_one_with_heads_or_without(tmp_path):
    """Students keep the gradient into their extractor when s3prl fine-tunes them; teachers are frozen there."""
    student = make(feature_norm=False, prediction_layers=(4, 8), feature_grad_mult=0.1)
    save_checkpoint(tmp_path / "student.ckpt", student, {})
    paths = [tmp_path / "student.ckpt"]
    paths.append(export_checkpoint(paths[0], tmp_path / "headless.ckpt", "native", drop_heads=True).path)
    paths.append(export_checkpoint(paths[0], tmp_path / "headless.pt", "s3prl", drop_heads=True).path)
    for path in paths:
        expert = UpstreamExpert(path)
        assert expert.is_student and expert.encoder.config.feature_grad_mult == pytest.approx(0.1), path
    thin = make(num_heads=12, attention_reuse=(1,), conv_layers=((16, 10, 5), (16, 3, 2)))
    weights = {"student_model." + fairseq_name(k, thin.config): v for k, v in thin.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "arm.ckpt")
    native = export_checkpoint(tmp_path / "arm.ckpt", tmp_path / "arm-native.ckpt", "native").path
    assert UpstreamExpert(tmp_path / "arm.ckpt").is_student and UpstreamExpert(native).is_student
    save_checkpoint(tmp_path / "distilled.ckpt", make(), {"teacher": {"file": "wavlm.pt"}})
    assert UpstreamExpert(tmp_path / "distilled.ckpt").is_student
    save_checkpoint(tmp_path / "teacher.ckpt", make(), {"teacher": "none"})
    teacher = UpstreamExpert(tmp_path / "teacher.ckpt")
    assert not teacher.is_student and teacher.encoder.config.feature_grad_mult == 0.0
    assert not UpstreamExpert(mini_teacher()).is_student
    assert not Checkpoint("robustdistiller", student.config, {}, {"student": False}).is_student


HEADLESS = {
    "distiller": {"feature_norm": False, "reference_mask": "block", "padding": "reference"},
    "torchaudio": {"normalize_waveform": True, "conv_norm": "layer", "normalize_eps": 1e-3},
    "dphubert": {"feature_scale": True, "first_state": "layer_input"},
    "native": {"norm_first": True, "last_state_normed": False},
}


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("kind", HEADLESS)
def test_how_a_headless_student_is_fine_tuned_and_heard_is_the_same_in_every_format(kind, to, tmp_path):
    """What the other software has no option for stands beside its own options, or is refused in one sentence."""
    student = make(prediction_layers=(4, 8), feature_grad_mult=0.1, **HEADLESS[kind])
    teacher = {"teacher": {"file": "wavlm.pt", "folder": "/home/someone"}}
    save_checkpoint(tmp_path / "student.ckpt", student, teacher)
    native = export_checkpoint(tmp_path / "student.ckpt", tmp_path / "headless.ckpt", "native", drop_heads=True).path
    try:
        other = export_checkpoint(native, tmp_path / "other", to).path
    except NotExportable as error:
        assert (kind, to) != ("distiller", "huggingface") and kind != to
        assert re.search("feature_scale|no layer norm between|factor|has no such norm", str(error))
        return
    expert = UpstreamExpert(other)
    assert expert.is_student and expert.encoder.config.feature_grad_mult == pytest.approx(0.1)
    expected, found = read_checkpoint(native), read_checkpoint(other)
    same = {"padding", "normalize_eps"}
    if to not in ("s3prl", "dphubert"):  # whose own code says which states an upstream gives
        same |= {"first_state", "last_state_normed", "reference_mask"}
    for option in same:
        assert getattr(found.config, option) == getattr(expected.config, option), option
    published = [file for file in (other.iterdir() if other.is_dir() else [other]) if to != "native"]
    assert not any(b"/home/someone" in file.read_bytes() for file in published)


def test_transformers_keeps_what_only_this_package_reads(tmp_path):
    transformers = pytest.importorskip("transformers")
    student = make(feature_norm=False, prediction_layers=(4, 8), feature_grad_mult=0.1)
    save_checkpoint(tmp_path / "student.ckpt", student, {})
    folder = export_checkpoint(tmp_path / "student.ckpt", tmp_path / "student", "huggingface").path
    transformers.AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "again")
    expert = UpstreamExpert(tmp_path / "again")
    assert expert.is_student and expert.encoder.config.feature_grad_mult == pytest.approx(0.1)
    assert expert.names[0] == "projected"


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        (3, "'robustdistiller' should be a dictionary of options, found int"),
        ({"config": {"num_layers": 50}}, "unknown option of this package 'num_layers'"),
        ({"config": {"feature_grad_mult": -1}}, "feature_grad_mult is -1; expected 0 or more"),
        ({"config": {"first_state": ["projected"]}}, "first_state is"),
        ({"config": [1]}, "'config' should be a dictionary of options, found list"),
    ],
)
def test_damaged_notes_in_a_foreign_file_are_refused(notes, message, tmp_path):
    save_checkpoint(tmp_path / "teacher.ckpt", make(), {})
    folder = export_checkpoint(tmp_path / "teacher.ckpt", tmp_path / "teacher", "huggingface").path
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"robustdistiller": notes}))
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)
