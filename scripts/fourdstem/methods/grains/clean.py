"""Clean-up: positions without a grain are given to the grain around them, in a map of its own."""

import numpy as np

from fourdstem.methods.grains.segments import Map

_AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def clean(here: Map, grain: np.ndarray, needed: int, rounds: int) -> dict:
    """Fill positions that belong to no grain from the majority of their neighbours.

    In every round, a position without a grain of which at least ``needed`` in 8 neighbours (in proportion at the
    edge of the scan) belong to one grain joins it, and takes the orientation of the neighbour of highest
    correlation in that grain. Positions of a grain never change. Rounds end when nothing changes.

    Returns
    -------
    dict
        ``orientation_clean``, ``phase_clean``, ``grain_clean`` and ``changed``, by the names of `Result`.
    """
    label, source = grain.astype(np.int64).copy(), np.arange(grain.size)
    score = np.nan_to_num(here.correlation, nan=-np.inf)
    exists, around = _around(here.shape)
    for _ in range(rounds):
        open_ = np.flatnonzero(label < 0)
        near = np.where(exists[open_], label[around[open_]], -1)
        same = (near[:, :, None] == near[:, None, :]) & (near >= 0)[:, None, :]
        votes = np.where(near >= 0, same.sum(axis=2), 0)
        enough = votes * len(_AROUND) >= needed * exists[open_].sum(axis=1, keepdims=True)
        enough &= votes > 0
        # Most votes first, then the highest correlation.
        most = enough & (votes == votes.max(axis=1, keepdims=True, initial=0))
        rank = np.where(most, score[source[around[open_]]], -np.inf)
        taken = most & (rank == rank.max(axis=1, keepdims=True, initial=-np.inf))
        won = np.flatnonzero(taken.any(axis=1))
        if won.size == 0:
            break
        giver = around[open_[won], taken[won].argmax(axis=1)]
        label[open_[won]], source[open_[won]] = label[giver], source[giver]
    moved = source != np.arange(grain.size)
    return {
        "orientation_clean": here.orientation[source].reshape(*here.shape, 4).astype(np.float32),
        "phase_clean": here.raw_phase[source].reshape(here.shape).astype(np.int16),
        "grain_clean": label.reshape(here.shape).astype(np.int32),
        "changed": np.where(moved, np.where(here.raw_phase < 0, 1, 2), 0).reshape(here.shape).astype(np.uint8),
    }


def _around(shape) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of the 8 neighbours exists, and where it is, each (n, 8)."""
    y, x = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    other = [(y + dy, x + dx) for dy, dx in _AROUND]
    exists = [(oy >= 0) & (oy < shape[0]) & (ox >= 0) & (ox < shape[1]) for oy, ox in other]
    place = [np.clip(oy, 0, shape[0] - 1) * shape[1] + np.clip(ox, 0, shape[1] - 1) for oy, ox in other]
    return np.stack(exists, axis=1), np.stack(place, axis=1)
