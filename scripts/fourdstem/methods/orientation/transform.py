"""Steps of transforms over azimuth and of the search for peaks, written for the vector units: see `fourdstem.vectors`.

`LANES` patterns lie side by side in a vector; all that is done to one is done to all of them.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from fourdstem.methods.orientation.vectors import product_sum
from fourdstem.vectors import FLOAT, INDEX, LANE, LANES, compiled, data, load, scalars, spread, store

VECTOR = ir.VectorType(FLOAT, LANES)
ROOT = float(np.float32(np.sqrt(0.75)))


def move(source, at, work, to):
    """Copy `LANES` numbers, flat in both arrays."""
    work.reshape(-1)[to : to + LANES] = source.reshape(-1)[at : at + LANES]


@compiled(move)
def _move(context, builder, signature, arguments):
    (numbers, target), (first, into) = (f(context, builder, signature, arguments) for f in (data, scalars))
    store(builder, load(builder, numbers, first, LANES), target, into)
    return context.get_dummy_value()


def radix4(work, at, quarter, to, step, imaginary, turns, angle):
    """One butterfly of four complex vectors.

    Parameters
    ----------
    work : ndarray of float32
        Flat are real parts, and each imaginary part so many numbers, ``imaginary``, after its real part.
    at, quarter : int
        Where the first of the four lies, and from one to the next.
    to, step : int
        Where results go, likewise.
    imaginary : int
    turns : ndarray of float32, shape (n, 6)
        Cosines and sines of once, twice, three times an angle.
    angle : int
        Row.
    """
    flat = work.reshape(-1)
    a, b, c, d = (
        flat[n : n + LANES] + 1j * flat[n + imaginary :][:LANES] for n in range(at, at + 4 * quarter, quarter)
    )
    one, two, three = turns[angle, ::2] + 1j * turns[angle, 1::2]
    results = a + c + b + d, (a - c + 1j * (b - d)) * one, (a + c - b - d) * two, (a - c - 1j * (b - d)) * three
    for n, result in zip(range(to, to + 4 * step, step), results, strict=True):
        flat[n : n + LANES], flat[n + imaginary :][:LANES] = result.real, result.imag


@compiled(radix4)
def _radix4(context, builder, signature, arguments):
    """Write what `radix4` says, for LLVM."""
    numbers, angles = data(context, builder, signature, arguments)
    first, quarter, to, step, imaginary, angle = scalars(context, builder, signature, arguments)
    row = builder.mul(angle, INDEX(6))
    turns = [spread(builder, builder.load(builder.gep(angles, [builder.add(row, INDEX(n))])), LANES) for n in range(6)]
    parts = []
    for n in range(4):
        at = builder.add(first, builder.mul(quarter, INDEX(n)))
        parts.append([load(builder, numbers, where, LANES) for where in (at, builder.add(at, imaginary))])
    (ar, ai), (br, bi), (cr, ci), (dr, di) = parts
    add, sub = builder.fadd, builder.fsub
    even, odd = (add(ar, cr), add(ai, ci)), (sub(ar, cr), sub(ai, ci))
    total, turn = (add(br, dr), add(bi, di)), (sub(di, bi), sub(br, dr))  # i (b - d)
    results = [
        (add(even[0], total[0]), add(even[1], total[1])),
        _times(builder, add(odd[0], turn[0]), add(odd[1], turn[1]), *turns[:2]),
        _times(builder, sub(even[0], total[0]), sub(even[1], total[1]), *turns[2:4]),
        _times(builder, sub(odd[0], turn[0]), sub(odd[1], turn[1]), *turns[4:]),
    ]
    for n, (real, other) in enumerate(results):
        at = builder.add(to, builder.mul(step, INDEX(n)))
        store(builder, real, numbers, at)
        store(builder, other, numbers, builder.add(at, imaginary))
    return context.get_dummy_value()


def _times(builder, x, y, c, s):
    """(x + i y) (c + i s)."""
    real = product_sum(builder, builder.fmul(x, c), (builder.fneg(y), s))
    return real, product_sum(builder, builder.fmul(y, c), (x, s))


def radix2(work, at, step, to, imaginary):
    """One butterfly of two complex vectors; results go as far apart as the two lie. For the rest see `radix4`."""
    flat = work.reshape(-1)
    a, b = (flat[n : n + LANES] + 1j * flat[n + imaginary :][:LANES] for n in (at, at + step))
    for n, result in ((to, a + b), (to + step, a - b)):
        flat[n : n + LANES], flat[n + imaginary :][:LANES] = result.real, result.imag


@compiled(radix2)
def _radix2(context, builder, signature, arguments):
    numbers, parts, places = _parts(context, builder, signature, arguments, 2)
    a, b = parts
    results = [tuple(map(builder.fadd, a, b)), tuple(map(builder.fsub, a, b))]
    return _put(context, builder, numbers, places, results)


def radix3(work, at, step, to, imaginary):
    """One butterfly of three complex vectors: see `radix2`."""
    flat = work.reshape(-1)
    a, b, c = (flat[n : n + LANES] + 1j * flat[n + imaginary :][:LANES] for n in range(at, at + 3 * step, step))
    turn = 1j * ROOT * (b - c)
    low = a - np.float32(0.5) * (b + c)
    for n, result in zip(range(to, to + 3 * step, step), (a + b + c, low + turn, low - turn), strict=True):
        flat[n : n + LANES], flat[n + imaginary :][:LANES] = result.real, result.imag


@compiled(radix3)
def _radix3(context, builder, signature, arguments):
    numbers, (a, b, c), places = _parts(context, builder, signature, arguments, 3)
    total = tuple(map(builder.fadd, b, c))
    turn = [builder.fmul(_all(ROOT), builder.fsub(x, y)) for x, y in ((c[1], b[1]), (b[0], c[0]))]
    low = [product_sum(builder, x, (_all(-0.5), y)) for x, y in zip(a, total, strict=True)]
    results = [
        tuple(map(builder.fadd, a, total)),
        *(tuple(map(f, low, turn)) for f in (builder.fadd, builder.fsub)),
    ]
    return _put(context, builder, numbers, places, results)


def _parts(context, builder, signature, arguments, count):
    """Numbers of ``work``, complex vectors from ``at`` on, where results and their imaginary parts go."""
    (numbers,) = data(context, builder, signature, arguments)
    at, step, to, imaginary = scalars(context, builder, signature, arguments)
    places = [[builder.add(begin, builder.mul(step, INDEX(n))) for n in range(count)] for begin in (at, to)]
    both = [[(begin, builder.add(begin, imaginary)) for begin in row] for row in places]
    return numbers, [[load(builder, numbers, where, LANES) for where in pair] for pair in both[0]], both[1]


def _put(context, builder, numbers, places, results):
    for pair, result in zip(places, results, strict=True):
        for where, values in zip(pair, result, strict=True):
            store(builder, values, numbers, where)
    return context.get_dummy_value()


def curves(work, at, imaginary, norm, own, mirrored, azimuths, to):
    """Make the curves of a template and its mirror image from the two parts of a transform.

    Parameters
    ----------
    work : ndarray of float32
        Flat are real and imaginary parts, (azimuth, lane). Filled likewise with (real + imaginary) times its norm, then
        with (real - imaginary) times its.
    at, imaginary : int
        Where the real parts begin, and so many numbers later the imaginary ones.
    norm : ndarray of float32
    own, mirrored : int
        Where the norms (azimuth,) of the two begin, flat.
    azimuths : int
    to : int
        Where the curves begin.
    """
    flat, scale, size = work.reshape(-1), norm.reshape(-1), azimuths * LANES
    real, other = (flat[begin : begin + size].reshape(azimuths, LANES) for begin in (at, at + imaginary))
    for begin, part in ((own, real + other), (mirrored, real - other)):
        flat[to : to + size] = (part * scale[begin : begin + azimuths, None]).ravel()
        to += size


@compiled(curves)
def _curves(context, builder, signature, arguments):
    """Write what `curves` says, for LLVM."""
    numbers, norms = data(context, builder, signature, arguments)
    at, imaginary, own, mirrored, azimuths, to = scalars(context, builder, signature, arguments)
    with cgutils.for_range(builder, azimuths, intp=INDEX) as loop:
        lane = builder.mul(loop.index, INDEX(LANES))
        real, other = (load(builder, numbers, builder.add(lane, n), LANES) for n in (at, builder.add(at, imaginary)))
        into = builder.add(to, lane)
        for begin, part in ((own, builder.fadd(real, other)), (mirrored, builder.fsub(real, other))):
            scale = builder.load(builder.gep(norms, [builder.add(begin, loop.index)]))
            store(builder, builder.fmul(part, spread(builder, scale, LANES)), numbers, into)
            into = builder.add(into, builder.mul(azimuths, INDEX(LANES)))
    return context.get_dummy_value()


def highest(work, at, azimuths, near, score, place, to, step):
    """Find the two highest peaks of a curve.

    Parameters
    ----------
    work : ndarray of float32
        Flat is the curve, (azimuth, lane).
    at, azimuths : int
        Where it begins, its length.
    near : float
        The second peak is a local maximum farther from the first than so many bins.
    score, place : ndarray of float32
        Flat at ``to`` and, for the second peak, ``step`` later: filled with heights, and with azimuths in bins, refined
        by a parabola; where there is no second one with 0 and something.
    to, step : int
    """
    curve = work.reshape(-1)[at : at + azimuths * LANES].reshape(azimuths, LANES)
    before, after, lane = np.roll(curve, 1, axis=0), np.roll(curve, -1, axis=0), np.arange(LANES)
    first = curve.argmax(axis=0)
    distance = np.abs(np.arange(azimuths)[:, None] - first)
    far = np.minimum(distance, azimuths - distance) > near
    peak = np.where(far & (curve > before) & (curve > after), curve, 0)
    for n, (values, found) in enumerate(((curve, first), (peak, peak.argmax(axis=0)))):
        left, right = before[found, lane], after[found, lane]
        bend = left - 2 * curve[found, lane] + right
        vertex = np.where(bend < 0, np.float32(0.5) * (left - right) / np.where(bend < 0, bend, -1), 0)
        score.reshape(-1)[to + n * step :][:LANES] = values[found, lane]
        place.reshape(-1)[to + n * step :][:LANES] = found + vertex


@compiled(highest)
def _highest(context, builder, signature, arguments):
    """Write what `highest` says, for LLVM."""
    numbers, scores, places = data(context, builder, signature, arguments)
    at, azimuths, near, to, step = scalars(context, builder, signature, arguments)
    first = _top(builder, numbers, at, azimuths)
    peaks = _beside(builder, numbers, at, azimuths, near, first)
    for n, (height, where, left, right) in enumerate(peaks):
        into = builder.add(to, builder.mul(step, INDEX(n)))
        twice = builder.fadd(height, height)
        bend = builder.fadd(builder.fsub(left, twice), right)
        slope = builder.fmul(_all(0.5), builder.fsub(left, right))
        curved = builder.fcmp_ordered("<", bend, _all(0.0))
        vertex = builder.select(curved, builder.fdiv(slope, bend), _all(0.0))
        store(builder, height, scores, into)
        store(builder, builder.fadd(where, vertex), places, into)
    return context.get_dummy_value()


def _top(builder, numbers, at, azimuths):
    """The greatest value of each lane, and its azimuth; of equals the first."""
    high, place = _variables(builder, load(builder, numbers, at, LANES), _all(0.0))
    with cgutils.for_range(builder, azimuths, intp=INDEX) as loop:
        here = load(builder, numbers, builder.add(at, builder.mul(loop.index, INDEX(LANES))), LANES)
        best = builder.load(high)
        _replace(builder, builder.fcmp_ordered(">", here, best), (high, here), (place, _number(builder, loop.index)))
    return builder.load(high), builder.load(place)


def _beside(builder, numbers, at, azimuths, near, first):
    """Both peaks: height, azimuth, the values before and after."""
    height, place = first
    last = builder.sub(azimuths, INDEX(1))
    ends = load(builder, numbers, at, LANES), load(builder, numbers, builder.add(at, _lanes(builder, last)), LANES)
    before, here = _variables(builder, ends[1], ends[0])
    left, right, high, where, left2, right2 = _variables(builder, *[_all(0.0)] * 6)
    # Bins are far apart where their distance differs from half of the whole by less than this.
    half = builder.fmul(_number(builder, azimuths), _all(0.5))
    least = builder.fsub(half, spread(builder, builder.fptrunc(near, FLOAT), LANES))
    with cgutils.for_range(builder, azimuths, intp=INDEX) as loop:
        following = builder.select(
            builder.icmp_signed("<", loop.index, last), builder.add(loop.index, INDEX(1)), INDEX(0)
        )
        after = load(builder, numbers, builder.add(at, _lanes(builder, following)), LANES)
        earlier, value, bins = builder.load(before), builder.load(here), _number(builder, loop.index)
        _replace(builder, builder.fcmp_ordered("==", bins, place), (left, earlier), (right, after))
        apart = _absolute(builder, builder.fsub(_absolute(builder, builder.fsub(bins, place)), half))
        beaten = _larger(builder, _larger(builder, earlier, after), builder.load(high))
        taken = builder.and_(builder.fcmp_ordered("<", apart, least), builder.fcmp_ordered(">", value, beaten))
        _replace(builder, taken, (high, value), (where, bins), (left2, earlier), (right2, after))
        builder.store(value, before)
        builder.store(after, here)
    second = [builder.load(kept) for kept in (high, where, left2, right2)]
    return (height, place, builder.load(left), builder.load(right)), second


def _variables(builder, *values):
    kept = [cgutils.alloca_once(builder, VECTOR) for _ in values]
    for variable, value in zip(kept, values, strict=True):
        builder.store(value, variable)
    return kept


def _replace(builder, where, *pairs):
    for variable, value in pairs:
        builder.store(builder.select(where, value, builder.load(variable)), variable)


def _all(value):
    return ir.Constant(VECTOR, [FLOAT(value)] * LANES)


def _number(builder, index):
    return spread(builder, builder.sitofp(index, FLOAT), LANES)


def _lanes(builder, index):
    return builder.mul(index, INDEX(LANES))


def _larger(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _absolute(builder, value):
    bits = ir.VectorType(LANE, LANES)
    unsigned = builder.and_(builder.bitcast(value, bits), ir.Constant(bits, [2**31 - 1] * LANES))
    return builder.bitcast(unsigned, VECTOR)
