"""Grains, boundaries, local misorientation and texture of an orientation map: see `analysis`."""

from fourdstem.methods.grains.analysis import Indexed, Params, Result, compute
from fourdstem.methods.grains.boundaries import random_turns
from fourdstem.methods.grains.tables import BOUNDARY_COLUMNS, GRAIN_COLUMNS, boundary_rows, grain_rows

__all__ = [
    "BOUNDARY_COLUMNS", "GRAIN_COLUMNS", "Indexed", "Params", "Result", "boundary_rows", "compute", "grain_rows",
    "random_turns",
]  # fmt: skip
