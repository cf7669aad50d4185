"""The user's mask: pixels that are never used."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from fourdstem.errors import InputError


def read_mask(path, detector_shape) -> np.ndarray:
    """Return a mask image as uint8 (detector_y, detector_x), 0 = never use this pixel, 1 = use it.

    Parameters
    ----------
    path : path
        ``.npy`` or an image (png, tif); of a colour image every channel but an alpha channel counts.
    detector_shape : tuple of int
        (detector_y, detector_x) as recorded.

    Raises
    ------
    InputError
        If the file is missing, no image, of another shape, or 0 everywhere.
    """
    expected = f"an image (png, tif, npy) of {detector_shape[0]} by {detector_shape[1]} px, 0 = never use this pixel"
    image = _read(Path(path), expected)
    if image.ndim == 3 and image.shape[2] in (2, 3, 4):
        colours = image.shape[2] - (image.shape[2] % 2 == 0)
        image = image[..., :colours].any(axis=2)
    if image.shape != tuple(detector_shape):
        raise InputError(
            f"the mask has shape {image.shape}, patterns have {tuple(detector_shape)}",
            where=str(path),
            expected=expected,
            do="Give acquisition.mask an image of the recorded detector, before any binning.",
        )
    mask = (image != 0).astype(np.uint8)
    if not mask.any():
        raise InputError(
            "the mask is 0 everywhere", where=str(path), expected=expected, do="Invert it, or leave it out."
        )
    return mask


def read_image(path, expected: str) -> np.ndarray:
    """Return an image file as float64 (y, x); the mean of its colours, without an alpha channel.

    Raises
    ------
    InputError
        If the file is missing or no image.
    """
    image = np.asarray(_read(Path(path), expected), float)
    if image.ndim == 3 and image.shape[2] in (2, 3, 4):
        image = image[..., : image.shape[2] - (image.shape[2] % 2 == 0)].mean(axis=2)
    return image


def _read(path: Path, expected: str) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else imageio.imread(path)
    except Exception as error:  # image libraries raise whatever they like on a broken file
        found = "no such file" if not path.is_file() else f"no readable image ({error})"
        raise InputError(found, where=str(path), expected=expected, do="Correct the path, or the file.") from error
