"""Loops of matching that are written for the vector units, each with the same in plain Python: see `fourdstem.vectors`.

Patterns lie side by side in the lanes of a vector where all of them go the same way (transforms, peaks); of the
refinement, whose patterns go different ways, the pixels around a place do, or the tilts of one template.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from fourdstem.vectors import DOUBLE, FLOAT, INDEX, LANE, LANES, ONCE, compiled, data, load, scalars, spread, store

PIECE = 4 * LANES  # pixels of a row that are filtered together: no sum waits for itself
TILTS = 8  # numbers in the widest vectors of float64
# Axes x and y of the tilts in units of a step. Ridges run between the axes.
TILTED = np.array([[1, 0], [0, 1], [1, 1], [1, -1]]) / np.sqrt([[1], [1], [2], [2]])
TILTED = np.ascontiguousarray(np.concatenate([TILTED, -TILTED]).T)
# Catmull and Rom's cubic: weights of four neighbours, by powers of the way from the second to the third.
CUBIC = np.array([[0, 1, 0, 0], [-0.5, 0, 0.5, 0], [1, -2.5, 2, -0.5], [-0.5, 1.5, -1.5, 0.5]], np.float32)


def _constant(values, kind):
    return ir.Constant(ir.VectorType(kind, len(values)), [kind(float(v)) for v in values])


def product_sum(builder, first, *products):
    """Return ``first`` plus products of two vectors each, every step rounded once."""
    for a, b in products:
        first = builder.fadd(builder.fmul(a, b, flags=ONCE), first, flags=ONCE)
    return first


def taps(values, at, offset, weight, count, out, to):
    """Fill ``out[to : to + PIECE]`` with sums of neighbours.

    Parameters
    ----------
    values : ndarray of float32
        Flat.
    at : int
        Where the numbers begin that an offset of 0 means.
    offset : ndarray of int64, shape (taps,)
    weight : ndarray of float32, shape (taps,)
    count : int
        Taps that are taken.
    out : ndarray of float32
        Flat.
    to : int
    """
    out[to : to + PIECE] = sum(
        w * values[at + step : at + step + PIECE] for step, w in zip(offset[:count], weight[:count], strict=True)
    )


@compiled(taps)
def _taps(context, builder, signature, arguments):
    numbers, offsets, weights, target = data(context, builder, signature, arguments)
    first, number, into = scalars(context, builder, signature, arguments)
    zero = ir.Constant(ir.VectorType(FLOAT, LANES), None)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(PIECE // LANES)]
    with cgutils.for_range(builder, number, intp=INDEX) as loop:
        own = spread(builder, builder.load(builder.gep(weights, [loop.index])), LANES)
        begin = builder.add(first, builder.load(builder.gep(offsets, [loop.index])))
        for n, total in enumerate(sums):
            part = load(builder, numbers, builder.add(begin, INDEX(n * LANES)), LANES)
            builder.store(product_sum(builder, builder.load(total), (own, part)), total)
    for n, total in enumerate(sums):
        store(builder, builder.load(total), target, builder.add(into, INDEX(n * LANES)))
    return context.get_dummy_value()


def spline(image, at, stride, v, u):
    """Value between pixels by `CUBIC`.

    Parameters
    ----------
    image : ndarray of float32
    at : int
        Pixel above and to the left, flat.
    stride : int
        From one row to the next.
    v, u : float
        How far below and to the right of it.
    """
    flat = image.reshape(-1)
    down, across = (np.float32(t) ** np.arange(4, dtype=np.float32) @ CUBIC for t in (v, u))
    return float(sum(w * (flat[at + (i - 1) * stride - 1 :][:4] @ across) for i, w in enumerate(down)))


@compiled(spline, types.float64)
def _spline(context, builder, signature, arguments):
    (numbers,) = data(context, builder, signature, arguments)
    first, step, *ways = scalars(context, builder, signature, arguments)
    powers = [_constant(row, FLOAT) for row in CUBIC]
    weights = []
    for way in ways:
        t = spread(builder, builder.fptrunc(way, FLOAT), 4)
        value = powers[3]
        for power in powers[2::-1]:
            value = product_sum(builder, power, (value, t))
        weights.append(value)
    total = None
    begin = builder.sub(builder.sub(first, step), INDEX(1))
    for n in range(4):
        row = load(builder, numbers, begin, 4)
        own = spread(builder, builder.extract_element(weights[0], LANE(n)), 4)
        total = builder.fmul(own, row) if total is None else product_sum(builder, total, (own, row))
        begin = builder.add(begin, step)
    total = builder.fmul(total, weights[1])
    lanes = [builder.extract_element(total, LANE(n)) for n in range(4)]
    whole = builder.fadd(builder.fadd(lanes[0], lanes[2]), builder.fadd(lanes[1], lanes[3]))
    return builder.fpext(whole, DOUBLE)


def tilts(table, at, last, more, factor, top, d, pixels, slot, sums):
    """Add one reflection to the sums of templates tilted by a step in each of the directions `TILTED`.

    Parameters
    ----------
    table : ndarray of float64, shape (rows, entries)
        Relrods.
    at : int
        Where the reflection's begins, flat.
    last : float
        Number of its last entry, an even one: in the middle the excitation error is 0.
    more : tuple of float
        x = (|k + g|² - k²) / k², and what one step of tilt about x and about y adds to it.
    factor : float
        Entries by which x moves along the relrod, where it is small.
    top, d, pixels : float
        Amplitude at the Bragg condition, D, squared norm on pixels that count.
    slot : int
        Of the ring.
    sums : ndarray of float64, shape (2 + slots, TILTS)
        Of a D, of a² pixels, and of a pixels by ring.
    """
    x = more[0] + more[1] * TILTED[0] + more[2] * TILTED[1]
    place = last / 2 - factor * x * (1 - x * (0.5 - x * (0.375 - x * 0.3125)))
    row = table.reshape(-1)[at : at + int(last) + 1]
    a = top * np.where((place >= 0) & (place < last), np.interp(place, np.arange(len(row)), row), 0)
    sums[0] += a * d
    sums[1] += a * a * pixels
    sums[2 + slot] += a * pixels


@compiled(tilts)
def _tilts(context, builder, signature, arguments):
    """Write what `tilts` says, for LLVM; excitation errors from the first terms of 1 / √(1 + x)."""
    numbers, sums = data(context, builder, signature, arguments)
    first, *values, slot = scalars(context, builder, signature, arguments)
    end, more, about_x, about_y, factor, top, d, pixels = (spread(builder, value, TILTS) for value in values)
    zero, whole = ir.Constant(end.type, None), ir.VectorType(INDEX, TILTS)
    x = product_sum(
        builder, more, *((a, _constant(b, DOUBLE)) for a, b in zip((about_x, about_y), TILTED, strict=True))
    )
    series = _constant([-0.3125] * TILTS, DOUBLE)
    for term in (0.375, -0.5, 1.0):
        series = product_sum(builder, _constant([term] * TILTS, DOUBLE), (series, x))
    middle = builder.fmul(end, _constant([0.5] * TILTS, DOUBLE))
    where = builder.fsub(middle, builder.fmul(builder.fmul(factor, x), series))
    inside = builder.and_(builder.fcmp_ordered(">=", where, zero), builder.fcmp_ordered("<", where, end))
    where = builder.select(inside, where, zero)
    entry = builder.fptosi(where, whole)
    part = builder.fsub(where, builder.sitofp(entry, where.type))
    here = there = ir.Constant(where.type, ir.Undefined)
    for n in range(TILTS):
        index = builder.add(first, builder.extract_element(entry, LANE(n)))
        here = builder.insert_element(here, builder.load(builder.gep(numbers, [index])), LANE(n))
        index = builder.add(index, INDEX(1))
        there = builder.insert_element(there, builder.load(builder.gep(numbers, [index])), LANE(n))
    a = builder.fmul(top, product_sum(builder, here, (builder.fsub(there, here), part)))
    a = builder.select(inside, a, zero)
    weight = builder.fmul(a, pixels)
    own = builder.mul(builder.add(slot, INDEX(2)), INDEX(TILTS))
    for at, (one, other) in ((INDEX(0), (a, d)), (INDEX(TILTS), (a, weight))):
        store(builder, product_sum(builder, load(builder, sums, at, TILTS), (one, other)), sums, at)
    store(builder, builder.fadd(load(builder, sums, own, TILTS), weight), sums, own)
    return context.get_dummy_value()


def nearest(images, at, count, q):
    """Greatest |p · q| of some quaternions p.

    Parameters
    ----------
    images : ndarray of float64, shape (..., 4, count)
    at : int
        Where the first components begin, flat; then follow the second, third and fourth.
    count : int
        A multiple of `TILTS`.
    q : tuple of float
    """
    return float(np.abs(np.array(q) @ images.reshape(-1)[at : at + 4 * count].reshape(4, count)).max())


@compiled(nearest, types.float64)
def _nearest(context, builder, signature, arguments):
    """Write what `nearest` says, for LLVM."""
    (numbers,) = data(context, builder, signature, arguments)
    first, count, *q = scalars(context, builder, signature, arguments)
    q = [spread(builder, value, TILTS) for value in q]
    high = cgutils.alloca_once(builder, q[0].type)
    builder.store(ir.Constant(q[0].type, None), high)
    with cgutils.for_range(builder, builder.sdiv(count, INDEX(TILTS)), intp=INDEX) as loop:
        at = builder.add(first, builder.mul(loop.index, INDEX(TILTS)))
        total = ir.Constant(q[0].type, None)
        for own in q:
            total = product_sum(builder, total, (own, load(builder, numbers, at, TILTS)))
            at = builder.add(at, count)
        for value in (total, builder.fneg(total)):
            best = builder.load(high)
            builder.store(builder.select(builder.fcmp_ordered(">", value, best), value, best), high)
    found, highest = builder.load(high), DOUBLE(0.0)
    for n in range(TILTS):
        value = builder.extract_element(found, LANE(n))
        highest = builder.select(builder.fcmp_ordered(">", value, highest), value, highest)
    return highest
