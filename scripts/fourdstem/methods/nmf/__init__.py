"""Phases without a model: non-negative matrix factorisation of patterns, clusters, overlap."""

from fourdstem.methods.nmf.compressed import captured, compress
from fourdstem.methods.nmf.solvers import Factors, solve
from fourdstem.methods.nmf.sweep import sweep

__all__ = ["Factors", "captured", "compress", "solve", "sweep"]
