"""Figures of the report. The only package that imports matplotlib; nothing is computed here but what a plot needs."""

from fourdstem.figures import evaluation, nonlocal_average, orientation, preprocess, virtual_image
from fourdstem.figures.style import Figure

__all__ = ["Figure", "evaluation", "nonlocal_average", "orientation", "preprocess", "virtual_image"]
