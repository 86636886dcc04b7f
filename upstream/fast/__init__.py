"""Faster kernels for a CPU, asked for explicitly."""
