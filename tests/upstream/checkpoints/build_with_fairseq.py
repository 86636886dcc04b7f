"""Builds small models with the real fairseq, in a process of its own, and saves their files and hidden states.

Usage: python build_with_fairseq.py FOLDER, where FOLDER/cases.pt says what to build.
"""

import sys

import fairseq
import torch
from fairseq.data import Dictionary
from fairseq.models.hubert import HubertConfig, HubertModel
from fairseq.models.wav2vec import Wav2Vec2Config, Wav2Vec2Model
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf


def build(arch, options):
    if arch == "hubert":
        config = HubertConfig(label_rate=50.0, **options)
        return HubertModel(config, HubertPretrainingConfig(), [Dictionary()]), config
    if arch == "wav2vec2":
        config = Wav2Vec2Config(quantize_targets=True, latent_dim=32, final_dim=32, **options)
        return Wav2Vec2Model(config), config
    sys.path.insert(0, fairseq.__path__[0])
    from examples.data2vec.models.data2vec_audio import Data2VecAudioConfig, Data2VecAudioModel

    config = Data2VecAudioConfig(average_top_k_layers=2, **options)
    return Data2VecAudioModel(config), config


def main(folder):
    cases, waveforms, lengths = torch.load(f"{folder}/cases.pt", weights_only=True)
    mask = torch.arange(waveforms.shape[1]) >= lengths[:, None]
    for name, (arch, options) in cases.items():
        torch.manual_seed(0)
        model, config = build(arch, options)
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value) * (0.3 if value.dim() == 1 else 0.05))
        model.eval()
        found = []
        for layer in model.encoder.layers:
            layer.register_forward_pre_hook(lambda _, args, found=found: found.append(args[0].transpose(0, 1)))
        model.encoder.register_forward_hook(lambda _, args, output, found=found: found.append(output[0]))
        with torch.no_grad():
            model.extract_features(waveforms, mask, mask=False)
        # As fairseq's trainer stores its options.
        options = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
        cfg = {"model": {"_name": arch, **options}, "task": {"_name": "audio_pretraining", "normalize": False}}
        content = {"args": None, "cfg": cfg, "model": model.state_dict(), "task_state": {"d": [Dictionary()]}}
        torch.save(content, f"{folder}/{name}.pt")
        torch.save([state[:, : found[-1].shape[1]].clone() for state in found], f"{folder}/{name}.states.pt")


if __name__ == "__main__":
    main(sys.argv[1])
