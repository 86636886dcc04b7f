"""Files that run an encoder without this package: ONNX in float32 and int8, ``torch.export``.

ONNX needs the packages of the extra ``export`` in ``setup.py``.
"""

from .check import Deviation, ExportError
from .expert import OnnxExpert
from .model import TARGETS, ExportedModel, export_model
from .runtime import OnnxEncoder

__all__ = ["TARGETS", "Deviation", "ExportError", "ExportedModel", "OnnxEncoder", "OnnxExpert", "export_model"]
