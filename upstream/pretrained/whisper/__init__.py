"""Whisper's encoder, a model that is no SpeechEncoder: it can teach and be an upstream, but is no student."""
