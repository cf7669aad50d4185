"""Figures of the report. The only package that imports matplotlib; nothing is computed here but what a plot needs."""

from fourdstem.figures import (
    evaluation,
    grains,
    nmf,
    nonlocal_average,
    orientation,
    overlap,
    poles,
    preprocess,
    probability,
    template_mask,
    virtual_image,
)
from fourdstem.figures.style import Figure

__all__ = [
    "Figure",
    "evaluation",
    "grains",
    "nmf",
    "nonlocal_average",
    "orientation",
    "overlap",
    "poles",
    "preprocess",
    "probability",
    "template_mask",
    "virtual_image",
]
