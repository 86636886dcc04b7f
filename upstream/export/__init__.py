"""Files that run an encoder without this package: ONNX in float32 and int8, ``torch.export``.

ONNX needs the packages of the extra ``export`` in ``setup.py``.
"""

from robustdistiller.upstream.export.check import Deviation, ExportError
from robustdistiller.upstream.export.model import TARGETS, ExportedModel, export_model
from robustdistiller.upstream.export.runtime import OnnxEncoder

__all__ = ["TARGETS", "Deviation", "ExportError", "ExportedModel", "OnnxEncoder", "export_model"]
