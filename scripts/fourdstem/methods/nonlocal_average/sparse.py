"""Kernels of the global search: patterns come by in chunks, and each position takes those that are its own.

What a position takes is its *entries*: ``place[i, e]`` is the place of a pattern among all that come by, ascending in
e. Patterns begin..begin + chunk - 1 are in the room; ``at[i]`` are the first and last + 1 entry of position i that
lie there. The pixels of a pattern lie in blocks (see `arrays.blocks`); those of all patterns in the room that belong
to one block stay in the cache while position after position takes its own.

The bits of a sum do not depend on which entries share a chunk: every difference is summed by the same loop, and
weighted patterns are added to a pixel one after the other.
"""

import numba
import numpy as np

from fourdstem.methods.nonlocal_average.arrays import BLOCK
from fourdstem.methods.nonlocal_average.kernels import FAST, pair_weight


@numba.njit(nogil=True, cache=True)
def advance(place, until, at):
    """Move ``at`` (positions, 2) on to the entries whose place lies before ``until``."""
    for i in range(place.shape[0]):
        at[i, 0] = at[i, 1]
        while at[i, 1] < place.shape[1] and place[i, at[i, 1]] < until:
            at[i, 1] += 1


@numba.njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def four_differences(own, i, room, c, d, e, f, block):
    """Return Σ (Z_i - Z_k)² of a block for the four patterns c, d, e, f of the room."""
    to_c = to_d = to_e = to_f = np.float32(0)
    for p in range(BLOCK):
        z = own[i, block, p]
        to_c += (z - room[c, block, p]) * (z - room[c, block, p])
        to_d += (z - room[d, block, p]) * (z - room[d, block, p])
        to_e += (z - room[e, block, p]) * (z - room[e, block, p])
        to_f += (z - room[f, block, p]) * (z - room[f, block, p])
    return to_c, to_d, to_e, to_f


@numba.njit(nogil=True, cache=True)
def compare(own, room, place, at, begin, queue, first, last, sums):
    """Add to ``sums[i, e]`` what positions differ by from their entries in the room.

    Parameters
    ----------
    own : ndarray of float32, shape (positions, blocks, BLOCK)
    room : ndarray of float32, shape (chunk, blocks, BLOCK)
    place : ndarray of int32, shape (positions, entries)
    at : ndarray of int64, shape (positions, 2)
    begin : int
        Place of the first pattern in the room.
    queue : ndarray of int64
        Positions ``queue[first:last]`` are compared, in this order.
    first, last : int
    sums : ndarray of float64, shape (positions, entries)
    """
    for block in range(own.shape[1]):
        for q in range(first, last):
            i = queue[q]
            stop = at[i, 1]
            for n in range(at[i, 0], stop, 4):
                c, d = place[i, n] - begin, place[i, min(n + 1, stop - 1)] - begin
                e, f = place[i, min(n + 2, stop - 1)] - begin, place[i, min(n + 3, stop - 1)] - begin
                found = four_differences(own, i, room, c, d, e, f, block)
                for k in range(min(4, stop - n)):
                    sums[i, n + k] += found[k]


@numba.njit(nogil=True, cache=True, fastmath={"contract"}, forceinline=True)
def add_four(room, c, d, e, f, block, weights, i, n, out):
    """Add to ``out[i]`` the block of the four patterns c, d, e, f of the room, weighted from ``weights[i, n]`` on."""
    a, b, g, h = weights[i, n], weights[i, n + 1], weights[i, n + 2], weights[i, n + 3]
    for p in range(BLOCK):
        total = out[i, block, p] + a * room[c, block, p] + b * room[d, block, p]
        out[i, block, p] = total + g * room[e, block, p] + h * room[f, block, p]


@numba.njit(nogil=True, cache=True, fastmath={"contract"}, forceinline=True)
def add_one(room, c, block, weight, i, out):
    """Add to ``out[i]`` the weighted block of one pattern of the room."""
    for p in range(BLOCK):
        out[i, block, p] = out[i, block, p] + weight * room[c, block, p]


@numba.njit(nogil=True, cache=True)
def add(room, place, at, begin, queue, first, last, block, weights, out):
    """Add to ``out[i]`` one block of the entries that are in the room, weighted; see `compare`.

    Parameters
    ----------
    block : int
    weights : ndarray of float32, shape (positions, entries)
    out : ndarray of float32, shape (positions, blocks, BLOCK)
    """
    for q in range(first, last):
        i = queue[q]
        n, stop = at[i, 0], at[i, 1]
        while n + 4 <= stop:
            c, d = place[i, n] - begin, place[i, n + 1] - begin
            e, f = place[i, n + 2] - begin, place[i, n + 3] - begin
            add_four(room, c, d, e, f, block, weights, i, n, out)
            n += 4
        while n < stop:
            add_one(room, place[i, n] - begin, block, weights[i, n], i, out)
            n += 1


@numba.njit(nogil=True, cache=True)
def weights_from(sums, entry, members, variance, first, n, scale, out):
    """Fill ``out[i]`` with the weights of the members of position first + i; the first member is itself and counts 1.

    Parameters
    ----------
    sums : ndarray of float64, shape (positions, entries)
        Σ (Z_i - Z_j)² of ``members[i, entry[i, e]]``.
    entry : ndarray of int64, shape (positions, entries)
    members : ndarray of int32, shape (positions, entries)
        -1: none.
    variance : ndarray of float64, shape (scan positions,)
    first, n : int
        n: pixels compared.
    scale : tuple of float
        λ and d₀.
    out : ndarray of float32, shape (positions, entries)
    """
    for i in range(sums.shape[0]):
        for e in range(sums.shape[1]):
            slot = entry[i, e]
            j = members[i, slot]
            if j < 0:
                out[i, slot] = 0.0
            elif slot == 0:
                out[i, slot] = 1.0
            else:
                out[i, slot] = pair_weight(sums[i, e], variance[first + i] + variance[j], n, scale)
