"""Apparent age, gender and ethnicity of the faces in a photo.

    >>> import facewise
    >>> for person in facewise.analyze("photo.jpg"):
    ...     print(person.age_years, person.age_interval_years, person.gender.top)

Nothing heavy is imported until the first photo is analysed.
"""

from facewise._version import __version__
from facewise.align import crop_faces
from facewise.analyzer import Analyzer, Timings, analyze
from facewise.draw import draw_predictions
from facewise.errors import FacewiseError, ImageError, ModelError, OptionError
from facewise.images import PhotoSource, load_photo
from facewise.models import ModelSpec, list_models
from facewise.mtcnn import MTCNN
from facewise.types import Distribution, Face, ModelInfo, Photo, Prediction, Quality

__all__ = [
    "MTCNN",
    "Analyzer",
    "Distribution",
    "Face",
    "FacewiseError",
    "ImageError",
    "ModelError",
    "ModelInfo",
    "ModelSpec",
    "OptionError",
    "Photo",
    "PhotoSource",
    "Prediction",
    "Quality",
    "Timings",
    "__version__",
    "analyze",
    "crop_faces",
    "draw_predictions",
    "list_models",
    "load_photo",
]
