"""Pictures as arrays: checked with advice on how to convert them, and copied to RGB."""

from __future__ import annotations

from typing import Any

import numpy as np

from facewise.errors import InvalidArrayError
from facewise.pixels import to_rgb
from facewise.types import ImageArray


def hint(source: Any) -> str:
    """Advice, to end a message with, on an object that is no picture; may be empty."""
    if source is None:
        return "; cv2.imread returns None if it cannot read the file"
    if isinstance(source, (list, tuple)):
        return "; several pictures are for analyze_many"
    if type(source).__module__.startswith("torch"):
        of, as_bytes = " from 0 to 1", "(tensor * 255).round().byte()"
        if str(getattr(source, "dtype", "")) == "torch.uint8":  # times 255, it would wrap around
            of, as_bytes = "", "tensor"
        return f"; for a torch tensor (3, H, W){of}: {as_bytes}.permute(1, 2, 0).cpu().numpy()"
    return ""


def check_array(array: Any) -> None:
    """Check that a NumPy array is a picture: uint8 ``(H, W, 3)``, ``(H, W, 4)`` or ``(H, W)``.

    Raises:
        InvalidArrayError: it is not; the message says how to convert it.
    """
    if array.dtype != np.uint8:
        raise InvalidArrayError(f"array is {array.dtype}: pass uint8, 0 to 255{_to_uint8(array)}")
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        raise InvalidArrayError(
            f"array has shape {array.shape}: pass (H, W, 3), (H, W, 4) or (H, W)"
            f"{_to_picture(array.shape)}"
        )


def _to_uint8(array: Any) -> str:
    """Suggest a conversion to uint8 based on the array's values; a wrong one would wrap around."""
    kind = array.dtype.kind
    if kind not in "biuf" or array.size == 0:
        return ""
    low, high = float(array.min()), float(array.max())  # NaN fails every comparison below
    if kind in "bf" and 0 <= low <= high <= 1:
        return ": (array * 255).round().astype(numpy.uint8)"
    if 0 <= low <= high <= 255:
        return ": array.round().astype(numpy.uint8)"
    if kind in "iu" and 0 <= low <= high < 4096:
        return ": if its samples have 12 bits, (array >> 4).astype(numpy.uint8)"
    if 0 <= low <= high <= 65535:
        return ": (array / 257).round().astype(numpy.uint8)"
    return ""


def _to_picture(shape: tuple[int, ...]) -> str:
    match shape:
        case (_, _, 1):
            return ": array[:, :, 0]"
        case (1 | 3 | 4, _, _):
            return "; for channels first: array.transpose(1, 2, 0)"
        case (_, _, _, _):
            return "; several pictures are for analyze_many"
    return ""


def from_array(array: Any, *, bgr: bool) -> ImageArray:
    """A copy of a checked array as uint8 ``(H, W, 3)`` RGB, transparency blended onto white."""
    from PIL import Image

    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)
    if bgr:
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    if array.shape[2] == 3:
        return np.array(array, dtype=np.uint8, order="C")
    # Pillow handles transparency, so that an array and its PNG agree to the last bit.
    return np.asarray(to_rgb(Image.fromarray(np.ascontiguousarray(array))))
