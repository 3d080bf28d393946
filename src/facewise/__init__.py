"""Every face in a photo, with its apparent age, gender and ethnicity.

    >>> import facewise
    >>> for person in facewise.analyze("photo.jpg"):
    ...     print(person.age_years, person.age_interval_years, person.gender.top)

Nothing heavy is imported until the first photo is analysed.
"""

from facewise._version import __version__
from facewise.analyzer import Analyzer, analyze
from facewise.errors import FacewiseError, ImageError, ModelError
from facewise.images import load_photo
from facewise.models import list_models
from facewise.mtcnn import MTCNN
from facewise.types import Distribution, Face, Photo, Prediction, Quality

__all__ = [
    "MTCNN",
    "Analyzer",
    "Distribution",
    "Face",
    "FacewiseError",
    "ImageError",
    "ModelError",
    "Photo",
    "Prediction",
    "Quality",
    "__version__",
    "analyze",
    "list_models",
    "load_photo",
]
