"""Folders for ``AutoModel`` with the code of the encoder in them: any encoder, for people without this package."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from robustdistiller.common.files import write_atomically, write_text
from robustdistiller.upstream.checkpoints.formats.base import (
    Card,
    Checkpoint,
    Clues,
    Exported,
    Format,
    Target,
    own_notes,
)
from robustdistiller.upstream.checkpoints.formats.huggingface import preprocessor
from robustdistiller.upstream.checkpoints.formats.huggingface_files import FILES, write_folder
from robustdistiller.upstream.checkpoints.model_card import model_card
from robustdistiller.upstream.checkpoints.parameter_names import check_own
from robustdistiller.upstream.checkpoints.plain import options_of, weights_of
from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.publishing.one_file import one_file

_TYPE = "robustdistiller"
_CODE = "modeling_robustdistiller"
_MODULE = "robustdistiller.upstream.publishing.transformers_model"
_ABOUT = "A small speech encoder as a model of transformers: needs PyTorch and transformers, nothing else."
#: The encoder is a part of the model that transformers knows.
_PREFIX = "encoder."


def _matches(content: Mapping[str, Any]) -> bool:
    config = content.get("hf_config")
    return isinstance(config, Mapping) and config.get("model_type") == _TYPE


def _read(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict]:
    """Configuration and weights; the code beside them is never looked at."""
    config = EncoderConfig.from_dict(options_of(content["hf_config"], "encoder_options"))
    weights = weights_of(content, "hf_weights")
    return config, check_own({name.removeprefix(_PREFIX): value for name, value in weights.items()}, config)


def _write(checkpoint: Checkpoint, path: Path, notes: tuple[str, ...], card: Card) -> Exported:
    code = one_file(_MODULE, _ABOUT)
    options = {
        "architectures": ["RobustDistillerModel"],
        "auto_map": {"AutoConfig": f"{_CODE}.RobustDistillerConfig", "AutoModel": f"{_CODE}.RobustDistillerModel"},
        "model_type": _TYPE,
        "torch_dtype": "float32",
        "encoder_options": checkpoint.config.to_dict(),
        **own_notes(checkpoint, ()),
    }

    def write(folder: Path) -> None:
        weights = {_PREFIX + name: value.contiguous() for name, value in checkpoint.state_dict.items()}
        write_atomically(folder / "model.safetensors", lambda file: save_file(weights, file, {"format": "pt"}))
        for name, values in {"preprocessor_config": preprocessor(False), "config": options}.items():
            write_text(folder / f"{name}.json", json.dumps(values, indent=2) + "\n")
        write_text(folder / f"{_CODE}.py", code)
        usage = "\n".join(_usage(checkpoint.config, card.address))
        write_text(folder / "README.md", model_card(checkpoint, path.name, usage, notes, card.results))

    write_folder(path, TARGET.files, write)
    return Exported(path, "transformers.AutoModel, with trust_remote_code=True", notes)


def _usage(config: EncoderConfig, address: str) -> Iterator[str]:
    yield "```python"
    yield "import torch"
    yield "from transformers import AutoModel"
    yield ""
    yield f'model = AutoModel.from_pretrained("{address}", trust_remote_code=True)'
    yield "waveforms = torch.randn(2, 16000)  # 16 kHz, mono, in [-1, 1]"
    yield "attention_mask = torch.ones(2, 16000, dtype=torch.long)"
    yield "attention_mask[1, 8000:] = 0  # the second is half as long"
    yield "with torch.no_grad():"
    yield "    output = model(waveforms, attention_mask, output_hidden_states=True)"
    yield f"output.last_hidden_state  # (batch, frames, {config.embed_dim})"
    yield "output.hidden_states  # the input of the first layer, then the output of each layer"
    if config.prediction_layers:
        layers = ", ".join(map(str, config.prediction_layers))
        yield f"output.predictions  # of the teacher's layers {layers}"
    yield "output.frame_lengths  # frames of each utterance; what lies behind them is padding"
    yield "```"
    yield ""
    yield "The code is one file in this repository, which needs PyTorch and transformers. Without it, the package"
    yield "robustdistiller reads the weights; no code of this repository is run then:"
    yield ""
    yield "```python"
    yield "import robustdistiller"
    yield ""
    yield f'encoder = robustdistiller.load("{address}")'
    yield "```"
    yield ""
    yield f"In s3prl, through the same package: `run_downstream.py -m train -u robustdistiller_local -k {address} ...`"


FORMATS: tuple[Format, ...] = (
    Format("published", "published by this package: config.json with encoder_options", _matches, _read),
)
TARGET = Target(
    "published",
    "transformers.AutoModel.from_pretrained with trust_remote_code: a folder with code and model card",
    "transformers",
    obstacle=lambda config: None,
    write=_write,
    keeps_heads=True,
    files=(f"{_CODE}.py", *FILES),
)
