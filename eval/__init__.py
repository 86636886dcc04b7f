"""Evaluation: unchanged s3prl downstreams under noise and reverberation, records, tables and plots."""
