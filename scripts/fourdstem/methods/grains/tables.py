"""The tables of grains and boundaries as rows of text files."""

import numpy as np

GRAIN_COLUMNS = (
    "grain", "phase", "size_px", "area_nm2", "diameter_nm", "centroid_y_px", "centroid_x_px", "w", "x", "y", "z",
    "spread_deg", "kam_floor_deg", "correlation", "reliability", "on_edge", "aspect_ratio",
)  # fmt: skip
BOUNDARY_COLUMNS = ("phase", "class", "segments", "length_nm", "share", "random_share")


def grain_rows(result) -> list[tuple]:
    """Return one row per grain, as headed by `GRAIN_COLUMNS`."""
    phases = [result.phase_name[k] for k in result.grain_phase]
    columns = (
        range(len(phases)),
        phases,
        result.grain_size_px.tolist(),
        result.grain_area_nm2.tolist(),
        result.grain_diameter_nm.tolist(),
        *result.grain_centroid_px.T.tolist(),
        *result.grain_orientation.T.tolist(),
        result.grain_spread_deg.tolist(),
        result.grain_kam_floor_deg.tolist(),
        result.grain_correlation.tolist(),
        result.grain_reliability.tolist(),
        result.grain_on_edge.tolist(),
        result.grain_aspect_ratio.tolist(),
    )
    return list(zip(*columns, strict=True))


def boundary_rows(result) -> list[tuple]:
    """Return one row per phase and class of boundary, as headed by `BOUNDARY_COLUMNS`."""
    phases = ["" if k < 0 else result.phase_name[k] for k in result.class_phase]
    values = (result.class_segments, result.class_length_nm, result.class_share, result.class_random_share)
    columns = (phases, result.class_name, *(np.asarray(v).tolist() for v in values))
    return list(zip(*columns, strict=True))
