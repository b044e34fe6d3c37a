"""Pictures and texts in: sources, cleaning, splits; pre- and postprocessing, metrics. The field's side of data: no torch."""

from edgewise.data.metrics import paired, quality, top1, wilson
from edgewise.data.picture import read_picture
from edgewise.data.postprocess import Classify, Prediction
from edgewise.data.preprocess import ImagePreprocess

__all__ = ["Classify", "ImagePreprocess", "Prediction", "paired", "quality", "read_picture", "top1", "wilson"]
