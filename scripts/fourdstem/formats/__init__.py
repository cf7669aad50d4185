"""Readers of raw scans: the only place that knows vendors' files.

`open_raw` gives any supported file as one lazily sliceable array of frames, with what the file says about its
acquisition, in the units of `calibration.Acquisition`.
"""

from fourdstem.formats.hdf5 import list_candidates
from fourdstem.formats.mask import read_mask
from fourdstem.formats.opening import SUFFIXES, open_raw
from fourdstem.formats.pictures import read_picture
from fourdstem.formats.raw import RawScan

__all__ = ["SUFFIXES", "RawScan", "list_candidates", "open_raw", "read_mask", "read_picture"]
