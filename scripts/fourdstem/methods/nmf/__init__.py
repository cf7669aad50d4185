"""Phases without a model: non-negative matrix factorisation of patterns, clusters, overlap."""

from fourdstem.methods.nmf.analysis import compute, doubts
from fourdstem.methods.nmf.compressed import captured, compress
from fourdstem.methods.nmf.settings import Params, Result
from fourdstem.methods.nmf.solvers import Factors, solve
from fourdstem.methods.nmf.sweep import Sweep, sweep

__all__ = ["Factors", "Params", "Result", "Sweep", "captured", "compress", "compute", "doubts", "solve", "sweep"]
