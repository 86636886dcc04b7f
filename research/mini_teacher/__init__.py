"""Training of the mini teacher: pool, labels, the log-mel stage and the waveform stage."""
