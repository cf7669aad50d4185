"""Orientation mapping by template matching: see `index` for the method and its frame."""

from fourdstem.methods.orientation.ang import ang_text
from fourdstem.methods.orientation.foreign import foreign_weight
from fourdstem.methods.orientation.index import Params, Result, compute
from fourdstem.methods.orientation.rotations import misorientation_deg
from fourdstem.methods.orientation.templates import template_pattern

__all__ = ["Params", "Result", "ang_text", "compute", "foreign_weight", "misorientation_deg", "template_pattern"]
