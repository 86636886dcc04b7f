"""Test conditions, what they draw from, and the loaders that corrupt."""
