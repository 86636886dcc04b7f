"""Joint distillation and structured pruning: gates on an encoder's units, and the small encoder that they leave.

>>> import torch
>>> from robustdistiller.upstream import EncoderConfig, SpeechEncoder
>>> encoder = SpeechEncoder(EncoderConfig(embed_dim=32, num_layers=2, num_heads=4, ffn_dim=64, position_groups=4))
>>> gates = Gates(encoder, PruningConfig(sparsity=0.5))
>>> loss = encoder(torch.randn(1, 800)).hidden_states[-1].square().mean() + gates.penalty(step=0)
>>> optimizer = torch.optim.AdamW([{"params": encoder.parameters()}, *gates.optimizer_groups()])
>>> loss.backward(); optimizer.step()
>>> small = gates.make_dense()
>>> small.count_parameters() == gates.parameters_after()
True
"""

from robustdistiller.pretrain.student.pruning.config import PruningConfig
from robustdistiller.pretrain.student.pruning.gates import Gates

__all__ = ["Gates", "PruningConfig"]
