"""Non-local averaging (NLSTEM): similar patterns are averaged, each weighted by how alike it is."""

from fourdstem.methods.nonlocal_average.average import Params, Result, compute

__all__ = ["Params", "Result", "compute"]
