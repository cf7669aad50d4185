"""What a run will cost, said before it starts."""

import dataclasses
import os
from math import prod

from fourdstem.calibration import Acquisition

# Seconds per 1e6 detector pixels on one core, measured on the demo (56 x 56 positions of 128 x 128 px, gold at 1°).
SECONDS_PER_MEGAPIXEL = {
    "preprocess": 0.15,
    "virtual_image": 0.05,
    "nonlocal_average": 0.2,
    "nmf": 0.3,
    "orientation": 0.45,
}
# Bytes written per detector pixel: recorded counts compress well, averaged ones (float32) hardly.
AVERAGED_BYTES = 3.0
MEGABYTE = 2**20


def estimate_text(shape, itemsize: int) -> str:
    """Return one line per stage with time, and the memory and disk that the whole needs.

    Parameters
    ----------
    shape : tuple of int
        (scan_y, scan_x, detector_y, detector_x) of the counts.
    itemsize : int
        Bytes per count.
    """
    cores = os.cpu_count() or 1
    megapixels = prod(shape) / 1e6
    seconds = {k: v * megapixels / cores for k, v in SECONDS_PER_MEGAPIXEL.items()}
    times = ", ".join(f"{stage} {_duration(s)}" for stage, s in seconds.items())
    stored, averaged = (prod(shape) * n / MEGABYTE for n in (itemsize, AVERAGED_BYTES))
    return (
        f"{shape[0]} x {shape[1]} positions of {shape[2]} x {shape[3]} px, {stored:.0f} MB of counts. "
        f"Estimated on {cores} cores, if the stage is run (orientation: per pattern source, about 20 s more for its "
        f"probability): {times}. "
        f"Each job starts in 2 to 15 s, more the first time, when code is compiled; a report takes about 20 s. "
        f"Disk: up to {stored:.0f} MB for scan.h5 (none where the raw file is linked), "
        f"about {averaged:.0f} MB for averaged patterns. Memory: each job keeps to its resource mem_mb."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def values_in_force(acquisition: Acquisition, origins: dict[str, str]) -> str:
    """Return one line of every acquisition value and where it comes from: "default" is what nobody stated."""
    values = {key: value for key, value in dataclasses.asdict(acquisition).items() if value is not None}
    shown = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return "acquisition: " + ", ".join(f"{key} {value} ({origins[key]})" for key, value in shown.items())
