"""Running an exported ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robustdistiller.upstream.checkpoints.files import existing_file

if TYPE_CHECKING:
    import onnxruntime

#: What :func:`~robustdistiller.upstream.export.export_model` notes in every ONNX file that a reader needs.
REQUIRED = (
    "layers",
    "layer_numbers",
    "num_layers",
    "parameters",
    "sample_rate_hz",
    "downsample_rate",
    "receptive_field",
)


class OnnxEncoder:
    """An exported encoder in onnxruntime: waveforms in, hidden states out, both numpy arrays.

    Args:
        path: a file that ``robustdistiller export`` wrote.
        threads: of the CPU; 0 leaves it to onnxruntime.

    Attributes:
        metadata: what the file says about itself: ``layers`` (names of its outputs), ``checkpoint_digest``,
            ``config``, ``precision``, ``max_relative_error`` and more.
        names: of the hidden states.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: onnxruntime is missing, cannot read the file, or ``robustdistiller export`` did not write it.

    >>> OnnxEncoder("nowhere.onnx")
    Traceback (most recent call last):
    FileNotFoundError: checkpoint nowhere.onnx: expected a file, found nothing there
    """

    def __init__(self, path: str | Path, threads: int = 0):
        self.path = existing_file(path)
        self.session = open_session(self.path, threads)
        found = self.session.get_modelmeta().custom_metadata_map
        missing = [key for key in REQUIRED if key not in found]
        if missing:
            raise ValueError(
                f"{path} is an ONNX file without the notes {', '.join(missing)}; expected one that "
                "`robustdistiller export` wrote"
            )
        if "stream" in found:
            raise ValueError(f"{path} is a step of streams; expected an encoder of whole utterances, without --stream")
        self.metadata = {key: _read(value) for key, value in found.items()}
        self.names = tuple(self.metadata["layers"])

    def __call__(self, waveforms: np.ndarray, lengths: np.ndarray | None = None) -> tuple[list[np.ndarray], np.ndarray]:
        """Encode a batch.

        Args:
            waveforms: ``(batch, samples)`` at 16 kHz.
            lengths: ``(batch,)`` valid samples; ``None`` means that all are.

        Returns:
            Hidden states, each ``(batch, frames, dim)`` float32, and ``(batch,)`` int64 valid frames: what stands past
            them means nothing.

        Raises:
            ValueError: shapes do not fit, or an utterance is too short for one frame.
        """
        waveforms = np.ascontiguousarray(waveforms, dtype=np.float32)
        if waveforms.ndim != 2:
            raise ValueError(f"waveforms have shape {waveforms.shape}; expected (batch, samples)")
        batch, samples = waveforms.shape
        lengths = np.full(batch, samples) if lengths is None else np.asarray(lengths)
        lengths = lengths.astype(np.int64)
        least = self.metadata["receptive_field"]
        if lengths.shape != (batch,) or batch == 0 or lengths.min() < least or lengths.max() > samples:
            raise ValueError(
                f"lengths are {lengths.tolist()} for waveforms of shape {waveforms.shape}; expected one per waveform, "
                f"from {least} (one frame) to {samples}"
            )
        *states, frames = self.session.run(None, {"waveforms": waveforms, "lengths": lengths})
        return states, frames


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU.

    Raises:
        ValueError: onnxruntime is missing, or cannot read the file.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    # onnxruntime's kernel for a residual and its layer norm at once takes longer than its two for them.
    slow = ["SkipLayerNormFusion"]
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=slow)
    except Exception as error:  # onnxruntime's own classes derive from Exception alone
        raise ValueError(f"{path} cannot be read as an ONNX file ({str(error).splitlines()[0]})") from error


def import_onnxruntime():
    """The module ``onnxruntime``.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(_missing(error)) from error
    return onnxruntime


def require_integer_products() -> None:
    """Refuse int8 where the runtime multiplies integers wrongly: 1.23 does on processors with AMX, in most shapes.

    Raises:
        ValueError: it does; what to install.
    """
    from onnx import TensorProto, helper, numpy_helper

    ort = import_onnxruntime()
    rng = np.random.default_rng(0)
    a = rng.integers(0, 255, (1, 300, 24), dtype=np.uint8)
    b = rng.integers(-64, 64, (24, 24), dtype=np.int8)
    inputs = [helper.make_tensor_value_info("a", TensorProto.UINT8, a.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT32, None)]
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    graph = helper.make_graph([node], "product", inputs, outputs, [numpy_helper.from_array(b, "b")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    if not np.array_equal(session.run(None, {"a": a})[0], a.astype(np.int32) @ b.astype(np.int32)):
        raise ValueError(
            f"onnxruntime {ort.__version__} multiplies integers wrongly on this processor, so int8 files would be "
            "noise; a newer one does not (Python 3.11 or later): pip install -U onnxruntime"
        )


def require_packages() -> None:
    """Refuse to begin without what writes ONNX files.

    Raises:
        ValueError: the extra is not installed.
    """
    import_onnxruntime()
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(_missing(error)) from error


def _missing(error: ImportError) -> str:
    return f"ONNX files need packages that are missing: pip install onnx onnxruntime onnxscript ({error})"


def _read(value: str):
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
