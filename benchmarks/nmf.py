"""Time the scan over ranks beside scikit-learn's NMF, over the same ranks and starts, with the true loss of every fit.

Make an environment with ``pip install scikit-learn==1.9.1`` and give its Python:

    PYTHONPATH=scripts python benchmarks/nmf.py --positions 65536 --detector 64 --rival PATH_TO_THAT_PYTHON

scikit-learn: ``NMF(k, solver="cd", tol=1e-4, max_iter=200)``, its defaults, started by nndsvda and then at random, on
the same float32 matrix in memory. It takes long, so that only some ranks are run (``--rival-ranks``), each fit in a
process of its own, stopped after ``--rival-limit`` seconds and then taken for that long. What all ranks and starts
would take is told twice: every fit taken for the fastest one that ran, which is less than it can be, and interpolated
linearly in the rank, beyond the largest that ran no longer than there. Losses are computed alike for both, in float64,
on whole patterns. ``--matrix`` keeps the simulated patterns in a file for the next run. ``--device cuda`` times the
scan on a graphics card.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RIVAL = """
import sys, time, warnings
import numpy as np
from sklearn.decomposition import NMF

warnings.simplefilter("ignore")
v = np.load(sys.argv[1])

def loss(w, h):
    rows = range(0, len(v), 1024)
    return sum(float(np.square(v[a:a + 1024] - w[a:a + 1024] @ h, dtype=np.float64).sum()) for a in rows)

k, s = map(int, sys.argv[2:])
begin = time.perf_counter(), time.process_time()
model = NMF(k, init="random" if s else "nndsvda", solver="cd", tol=1e-4, max_iter=200, random_state=s)
w = model.fit_transform(v)
took = time.perf_counter() - begin[0], time.process_time() - begin[1]
print(*took, model.n_iter_, loss(w, model.components_), flush=True)
"""


def simulate(positions: int, detector: int, grains: int, dose: float, seed: int = 0):
    """Return Poisson counts (positions, detector²), float32, of grains whose neighbours overlap."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    draw, side = np.random.default_rng(seed), int(np.ceil(np.sqrt(positions)))
    fields = [gaussian_filter(draw.standard_normal((side, side)), side / 16) for _ in range(grains)]
    share = np.exp(8 * np.stack(fields) / np.std(fields[0])).reshape(grains, -1)[:, :positions]
    share /= share.sum(axis=0)
    y, x = np.mgrid[:detector, :detector] - (detector - 1) / 2
    patterns = np.repeat(0.2 * np.exp(-np.hypot(y, x) / (0.15 * detector))[None], grains, axis=0)
    for pattern in patterns:
        for cy, cx in draw.uniform(-0.42 * detector, 0.42 * detector, (25, 2)):
            pattern += draw.exponential(0.5) * (np.hypot(y - cy, x - cx) < 0.03 * detector)
    patterns = (patterns * dose / patterns.sum(axis=(1, 2), keepdims=True)).reshape(grains, -1)
    out = np.empty((positions, detector * detector), np.float32)
    for a in range(0, positions, 1024):
        out[a : a + 1024] = draw.poisson(share[:, a : a + 1024].T @ patterns)
    return out


def own(v, ranks, starts: int, threads: int, device: str):
    """Return the losses of all fits, {(rank, start): loss}, seconds, processor seconds and growth of memory in MB."""
    from fourdstem.methods.nmf import sweep
    from fourdstem.methods.nmf.matrix import wrap

    sweep(v[:512], [2, 3], 2, threads=threads, device=device)  # compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter(), time.process_time()
    found = sweep(wrap(v), ranks, starts, threads=threads, device=device)
    seconds = time.perf_counter() - begin[0], time.process_time() - begin[1]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    fits = {(k, s): one for k, many in found.fits.items() for s, one in enumerate(many)}
    return fits, seconds, grown, found.error


def true_loss(v, fit) -> float:
    """Return ``|V - W H|²``, computed straight from its definition."""
    import numpy as np

    rows = range(0, len(v), 1024)
    model = ((v[a : a + 1024], fit.weight[a : a + 1024] @ fit.component) for a in rows)
    return sum(float(np.square(one - two, dtype=np.float64).sum()) for one, two in model)


def rival(python: str, path: Path, job: tuple[int, int], threads: int, limit: float | None):
    """Return seconds, processor seconds, iterations and loss of scikit-learn; NaN, 0 and NaN for what was stopped."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    environment.pop("PYTHONPATH", None)
    command = [python, "-c", RIVAL, str(path), *map(str, job)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=limit)
    except subprocess.TimeoutExpired:
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return limit, busy, 0, float("nan")
    took, busy, iterations, cost = done.stdout.split()
    return float(took), float(busy), int(iterations), float(cost)


def compare(given, fits, seconds, v, path: Path) -> None:
    """Run scikit-learn and print losses side by side, and both times over all ranks and starts."""
    import numpy as np

    print('scikit-learn: NMF(solver="cd", tol=1e-4, max_iter=200); ours: hals, tol 1e-5, max_iter 1000; both float32')
    print("rank start   loss, scikit-learn   ours / theirs   iterations   seconds (processor)", flush=True)
    theirs = {}
    for k, s in ((k, s) for k in given.rival_ranks for s in range(given.rival_starts)):
        theirs[k, s] = took, busy, iterations, cost = rival(given.rival, path, (k, s), given.threads, given.rival_limit)
        ratio = true_loss(v, fits[k, s]) / cost
        line = f"{k:4d} {s:5d} {cost:20.6g} {ratio:15.5f} {iterations:12d} {took:9.1f} ({busy:.1f})"
        print(line if iterations else f"{line}, stopped", flush=True)
    ranks, known = sorted({k for k, _ in fits}), sorted({k for k, _ in theirs})
    mean = [[np.mean([theirs[job][i] for job in theirs if job[0] == k]) for k in known] for i in (0, 1)]
    fastest = [len(fits) * min(one[i] for one in theirs.values()) for i in (0, 1)]
    total = [given.starts * float(np.interp(ranks, known, values).sum()) for values in mean]
    for told, how in ((fastest, "every fit as the fastest that ran"), (total, "others interpolated in the rank")):
        print(f"scikit-learn, all ranks and starts: {told[0]:.0f} s, {told[1]:.0f} s of processor time ({how})")
        print(f"ratio: {told[0] / seconds[0]:.1f} by the clock, {told[1] / seconds[1]:.1f} by processor time")


def patterns(given):
    """Return the simulated matrix and the file that holds it too, where one is wanted."""
    import numpy as np

    if given.matrix and given.matrix.exists():
        return np.load(given.matrix)
    v = simulate(given.positions, given.detector, given.grains, given.dose)
    if given.matrix:
        np.save(given.matrix, v)
    return v


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--positions", type=int, default=16384)
    parser.add_argument("--detector", type=int, default=64)
    parser.add_argument("--dose", type=float, default=1000)
    parser.add_argument("--grains", type=int, default=9)
    parser.add_argument("--ranks", type=int, nargs=2, default=(3, 20))
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rival", help="Python with scikit-learn")
    parser.add_argument("--rival-ranks", type=int, nargs="+", default=(3, 9, 20))
    parser.add_argument("--rival-starts", type=int, default=2)
    parser.add_argument("--rival-limit", type=float, help="seconds after which one of its fits is stopped")
    parser.add_argument("--matrix", type=Path, help="file (.npy) that keeps the patterns")
    given = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    v = patterns(given)
    ranks = range(given.ranks[0], given.ranks[1] + 1)
    fits, seconds, grown, error = own(v, ranks, given.starts, given.threads, given.device)
    size = v.nbytes / 2**20
    print(f"{given.positions} positions, {given.detector}² pixels: {size:.0f} MB, {given.dose:g} electrons per pattern")
    took = f"{seconds[0]:.1f} s, {seconds[1]:.1f} s of processor time"
    print(f"ranks {ranks[0]} to {ranks[-1]}, {given.starts} starts: {took}")
    print(f"memory beside the data: {grown:.0f} MB ({1 + grown / size:.2f} times the data in all)")
    print(f"losses of the compressed patterns: off by {100 * error:.2g} % at most")
    print(f"not converged: {sum(not one.converged for one in fits.values())} of {len(fits)}")
    sys.stdout.flush()
    if given.rival:
        import numpy as np

        with tempfile.TemporaryDirectory() as folder:
            path = given.matrix or Path(folder) / "v.npy"
            if not path.exists():
                np.save(path, v)
            compare(given, fits, seconds, v, path)


if __name__ == "__main__":
    main()
