"""How much of an averaged pattern comes from elsewhere, judged by the orientation map itself."""

import numpy as np

from fourdstem.methods.orientation.rotations import misorientation_deg

FOREIGN_DEG = 5.0


def foreign_weight(result, member, weight, crystals) -> np.ndarray:
    """Return the share of weight that comes from positions of another phase or orientation.

    A low share is no proof: patterns that were mixed are indexed alike.

    Parameters
    ----------
    result : orientation.Result
        Of the averaged patterns.
    member : array-like of int, shape (scan_y, scan_x, member)
        ``y * scan_x + x`` of what each pattern was averaged from; -1: none.
    weight : array-like of shape (scan_y, scan_x, member)
    crystals : list of Crystal

    Returns
    -------
    ndarray of float32, shape (scan_y, scan_x)
        Share of the weight of indexed members that are more than 5° away; NaN where not indexed.
    """
    ny, nx = result.phase.shape
    phase, orientation = result.phase.reshape(-1), result.orientation.reshape(-1, 4)
    out = np.full((ny, nx), np.nan, np.float32)
    for y in range(ny):
        others, shares = np.asarray(member[y]), np.asarray(weight[y], np.float64)
        known = (others >= 0) & (phase[others] >= 0)
        same = known & (phase[others] == result.phase[y][:, None])
        for index, crystal in enumerate(crystals):
            x, k = np.nonzero(same & (result.phase[y] == index)[:, None])
            apart = misorientation_deg(result.orientation[y, x], orientation[others[x, k]], crystal)
            same[x[apart > FOREIGN_DEG], k[apart > FOREIGN_DEG]] = False
        total = (shares * known).sum(axis=1)
        indexed = (result.phase[y] >= 0) & (total > 0)
        out[y, indexed] = 1 - (shares * same).sum(axis=1)[indexed] / total[indexed]
    return out
