"""Non-local averaging (NLSTEM): similar patterns are averaged, each weighted by how alike it is."""

from fourdstem.methods.nonlocal_average.average import Output, Params, Result, compute, doubts, members

__all__ = ["Output", "Params", "Result", "compute", "doubts", "members"]
