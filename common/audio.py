"""What all rooms take for granted about audio."""

#: Of the waveforms that upstreams, teachers and corruptions work on; files of other rates are resampled when read.
SAMPLE_RATE_HZ = 16_000
