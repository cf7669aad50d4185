"""Time the scan over ranks beside scikit-learn's NMF, over the same ranks and starts, with the true loss of every fit.

Make an environment with ``pip install scikit-learn==1.9.1`` and give its Python:

    PYTHONPATH=scripts python benchmarks/nmf.py --positions 65536 --detector 64 --rival PATH_TO_THAT_PYTHON

scikit-learn: ``NMF(k, solver="cd", tol=1e-4, max_iter=200)``, its defaults, started by nndsvda and then at random, on
the same float32 matrix in memory. It takes long, so that only some ranks are run (``--rival-ranks``); the time of the
others is interpolated linearly in the rank, which it is nearly proportional to, and beyond the largest rank that ran it
is taken to be no longer, which favours scikit-learn. Losses are computed alike for both, in
float64, on whole patterns. ``--device cuda`` times the scan on a graphics card.
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

for job in sys.argv[2:]:
    k, s = map(int, job.split(":"))
    begin = time.perf_counter(), time.process_time()
    model = NMF(k, init="random" if s else "nndsvda", solver="cd", tol=1e-4, max_iter=200, random_state=s)
    w = model.fit_transform(v)
    took = time.perf_counter() - begin[0], time.process_time() - begin[1]
    print(k, s, *took, model.n_iter_, loss(w, model.components_), flush=True)
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


def rival(python: str, v, jobs, threads: int):
    """Return {(rank, start): (seconds, processor seconds, iterations, loss)} of scikit-learn."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "v.npy", v)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        environment.pop("PYTHONPATH", None)
        command = [python, "-c", RIVAL, str(Path(folder) / "v.npy"), *(f"{k}:{s}" for k, s in jobs)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return {(int(k), int(s)): (float(t), float(p), int(n), float(cost)) for k, s, t, p, n, cost in rows}


def compare(fits, seconds, v, ranks, starts: int, theirs) -> None:
    """Print losses side by side, and both times over all ranks and starts."""
    import numpy as np

    print('scikit-learn: NMF(solver="cd", tol=1e-4, max_iter=200); ours: hals, tol 1e-5, max_iter 1000; both float32')
    print("rank start   loss, scikit-learn   ours / theirs   iterations   seconds (processor)")
    for (k, s), (took, busy, iterations, cost) in theirs.items():
        ratio = true_loss(v, fits[k, s]) / cost
        print(f"{k:4d} {s:5d} {cost:20.6g} {ratio:15.5f} {iterations:12d} {took:9.1f} ({busy:.1f})")
    known = sorted({k for k, _ in theirs})
    mean = [[np.mean([theirs[job][i] for job in theirs if job[0] == k]) for k in known] for i in (0, 1)]
    total = [starts * float(np.interp(ranks, known, values).sum()) for values in mean]
    ran = f"ranks {', '.join(map(str, known))} ran, {len(theirs) // len(known)} of {starts} starts; others interpolated"
    print(f"scikit-learn, all ranks and starts: {total[0]:.0f} s, {total[1]:.0f} s of processor time ({ran})")
    print(f"ratio: {total[0] / seconds[0]:.1f} by the clock, {total[1] / seconds[1]:.1f} by processor time")


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
    given = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    v = simulate(given.positions, given.detector, given.grains, given.dose)
    ranks = range(given.ranks[0], given.ranks[1] + 1)
    fits, seconds, grown, error = own(v, ranks, given.starts, given.threads, given.device)
    size = v.nbytes / 2**20
    print(f"{given.positions} positions, {given.detector}² pixels: {size:.0f} MB, {given.dose:g} electrons per pattern")
    took = f"{seconds[0]:.1f} s, {seconds[1]:.1f} s of processor time"
    print(f"ranks {ranks[0]} to {ranks[-1]}, {given.starts} starts: {took}")
    print(f"memory beside the data: {grown:.0f} MB ({1 + grown / size:.2f} times the data in all)")
    print(f"losses of the compressed patterns: off by {100 * error:.2g} % at most")
    print(f"not converged: {sum(not one.converged for one in fits.values())} of {len(fits)}")
    if given.rival:
        jobs = [(k, s) for k in given.rival_ranks for s in range(given.rival_starts)]
        compare(fits, seconds, v, list(ranks), given.starts, rival(given.rival, v, jobs, given.threads))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
