"""Features of WAV files from an exported student, with numpy and onnxruntime alone. Copy it into your own program.

python example_onnx.py student.onnx speech.wav [more.wav ...]
"""

import json
import sys
import wave

import numpy as np
import onnxruntime


def read_wav(path: str, sample_rate_hz: int) -> np.ndarray:
    """Samples ``(samples,)`` float32 of a 16-bit mono file, from -1 to 1.

    Raises:
        ValueError: the file is of another kind.
    """
    with wave.open(path) as file:
        found = (file.getframerate(), file.getnchannels(), 8 * file.getsampwidth())
        if found != (sample_rate_hz, 1, 16):
            raise ValueError(f"{path}: expected {sample_rate_hz} Hz, 1 channel and 16 bits, found {found}")
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 32768


def main(model: str, *wavs: str) -> None:
    """Encode WAV files as one padded batch and say what comes out."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    notes = session.get_modelmeta().custom_metadata_map
    names = json.loads(notes["layers"])
    waveforms = [read_wav(path, int(notes["sample_rate_hz"])) for path in wavs]
    lengths = np.array([len(waveform) for waveform in waveforms], dtype=np.int64)
    batch = np.zeros((len(waveforms), lengths.max()), dtype=np.float32)
    for row, waveform in zip(batch, waveforms):
        row[: len(waveform)] = waveform
    *hidden_states, frames = session.run(None, {"waveforms": batch, "lengths": lengths})
    for path, row, count in zip(wavs, range(len(wavs)), frames):
        for name, state in zip(names, hidden_states):
            features = state[row, :count]  # (frames, dim): what lies behind is padding
            sys.stdout.write(f"{path} {name} {features.shape} mean {features.mean():.4f} std {features.std():.4f}\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (ValueError, wave.Error, OSError) as error:
        sys.exit(f"example_onnx.py: {error}")
