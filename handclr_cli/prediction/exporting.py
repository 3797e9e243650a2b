"""The export of a model to ONNX, checked on some of the crops that are predicted."""

from __future__ import annotations

from .. import console
from ..contract.version import __version__
from ..learning.export import OPSET, require_onnx, write_onnx
from ..learning.prediction import some_crops
from .estimators import ModelEstimator
from .sources import ShardSource

CHECKED_CROPS = 128


def export_model(path: str, estimator: ModelEstimator, source: ShardSource) -> None:
    """Export a model, and say how well the export agrees with it.

    Raises HandclrError where it cannot be exported, or there is no crop to check it with.
    """
    require_onnx()
    model = estimator.model
    crops = some_crops(source.index, model.size, CHECKED_CROPS)
    about = {"handclr": __version__, "model_sha256": next(iter(estimator.checksums.values()))}
    check = write_onnx(model, crops, path, about)
    if check is None:
        console.warn(f"{path}: not checked; pip install onnxruntime")
        return
    worst = f"{check.worst_mm:.2g} mm and {check.worst_px:.2g} px"
    told = f"differs by at most {worst} on {console.plural(check.crops, 'crop')}"
    if check.ties:
        told += f", but for {console.plural(check.ties, 'joint')} that lie in two places alike"
    console.say(f"predict: {path}, opset {OPSET}, {told}")
