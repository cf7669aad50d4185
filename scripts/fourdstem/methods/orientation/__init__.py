"""Orientation mapping by template matching: see `index` for the method and its frame."""

from fourdstem.methods.orientation.ang import ang_text
from fourdstem.methods.orientation.base_rate import shift, shifted
from fourdstem.methods.orientation.ctf import ctf_text, hkl_axes
from fourdstem.methods.orientation.evidence import Averages, averages
from fourdstem.methods.orientation.foreign import foreign_weight
from fourdstem.methods.orientation.index import Params, Result, compute, indexed
from fourdstem.methods.orientation.logistic import curve, scores
from fourdstem.methods.orientation.orix_map import orix_tree
from fourdstem.methods.orientation.overlap import SHARE as OVERLAP_SHARE
from fourdstem.methods.orientation.overlap import SIGNIFICANCE as OVERLAP_SIGNIFICANCE
from fourdstem.methods.orientation.overlap import overlapping
from fourdstem.methods.orientation.phases import ALIKE_SHARE, alike_patterns, sentence
from fourdstem.methods.orientation.polish import matters, tell_camera
from fourdstem.methods.orientation.probability import right, with_probability
from fourdstem.methods.orientation.rotations import misorientation_deg
from fourdstem.methods.orientation.templates import intensity_model, template_pattern

__all__ = [
    "ALIKE_SHARE",
    "OVERLAP_SHARE",
    "OVERLAP_SIGNIFICANCE",
    "Averages",
    "Params",
    "Result",
    "alike_patterns",
    "ang_text",
    "averages",
    "compute",
    "ctf_text",
    "curve",
    "foreign_weight",
    "hkl_axes",
    "indexed",
    "intensity_model",
    "matters",
    "misorientation_deg",
    "orix_tree",
    "overlapping",
    "right",
    "scores",
    "sentence",
    "shift",
    "shifted",
    "tell_camera",
    "template_pattern",
    "with_probability",
]
