"""Orientation mapping by template matching: see `index` for the method and its frame."""

from fourdstem.methods.orientation.ang import ang_text
from fourdstem.methods.orientation.ctf import ctf_text, hkl_axes
from fourdstem.methods.orientation.foreign import foreign_weight
from fourdstem.methods.orientation.index import Params, Result, compute
from fourdstem.methods.orientation.orix_map import orix_tree
from fourdstem.methods.orientation.probability import curve, pick, right, scores, with_probability
from fourdstem.methods.orientation.rotations import misorientation_deg
from fourdstem.methods.orientation.templates import intensity_model, template_pattern

__all__ = [
    "Params",
    "Result",
    "ang_text",
    "compute",
    "ctf_text",
    "curve",
    "foreign_weight",
    "hkl_axes",
    "intensity_model",
    "misorientation_deg",
    "orix_tree",
    "pick",
    "right",
    "scores",
    "template_pattern",
    "with_probability",
]
