"""Published baselines and records measured by this project (package data)."""
