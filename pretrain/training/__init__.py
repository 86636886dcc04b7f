"""The training itself: stages, loop, step, checkpoints, log, validation."""
