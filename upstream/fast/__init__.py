"""Faster kernels for a CPU, asked for explicitly: a frozen copy of an encoder for inference, or parts for training."""

from robustdistiller.upstream.fast.accelerate import accelerate, accelerate_training

__all__ = ["accelerate", "accelerate_training"]
