"""Pictures of a scan that a user draws or computes elsewhere."""

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers its filters
import numpy as np

from fourdstem.errors import InputError
from fourdstem.formats.hdf5 import is_hdf5
from fourdstem.formats.mask import read_image


def read_picture(path, dataset: str | None = None) -> np.ndarray:
    """Return a picture as float64 (y, x): an image file, or a dataset of an HDF5 file.

    Raises
    ------
    InputError
        If the file cannot be read, or the dataset is not there or has not two axes.
    """
    expected = "an image (png, tif, npy) or an HDF5 dataset with two axes"
    if dataset is None and not is_hdf5(Path(path)):
        return read_image(path, expected)
    try:
        with h5py.File(path, "r") as file:
            data = None if dataset is None else file.get(dataset)
            if not isinstance(data, h5py.Dataset) or data.ndim != 2:
                raise InputError(
                    f"no picture at dataset {dataset}", where=str(path), expected=expected, do="Give `dataset`."
                )
            return np.asarray(data[()], float)
    except OSError as error:
        raise InputError(str(error), where=str(path), expected=expected, do="Check the file.") from None
