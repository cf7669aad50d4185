"""Time non-local averaging beside its authors' code, and its searches beside each other, in one run, as ratios.

Make an environment with ``pip install pyebsdindex==0.3.10`` and give its Python:

    OMP_NUM_THREADS=1 PYTHONPATH=scripts python benchmarks/nonlocal_average.py --rival PATH_TO_THAT_PYTHON

Both get patterns that lie in memory and the same mask, both run once on a small scan first to compile, both average the
square roots. The rival's kernels are called directly, so that neither side reads or writes a file. Without a rival the
searches and distances of this project are timed on two scans, the second of four times as many positions; with
``--device cuda`` the window search on a graphics card beside the processor.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOTS = 200  # times that a block of them is taken

RIVAL = """
import sys, time
import numba, numpy as np
from pyebsdindex.nlpar_cpu import NLPAR

def run(counts):
    ny, nx, n_y, n_x = counts.shape
    begin = time.perf_counter(), time.process_time()
    data = counts.astype(np.float32)
    data = np.sqrt(data - data.min()).reshape(ny * nx, -1)
    pixels = np.load(sys.argv[5])
    ends = np.array([0, ny], np.uint64), np.array([0, nx], np.uint64)
    sigma = NLPAR.sigma_numba(data, np.uint64(1), np.int64(ny), np.int64(nx), *ends, pixels.astype(np.uint64), False)[0]
    # Its default for calclim is changed by the first call, so that a second one would compute only a part.
    everything = np.array([0, 0, nx, ny])
    out = NLPAR.nlpar_nb(data, np.float32(sys.argv[2]), np.int64(4), np.float32(0), sigma, np.int64(ny), np.int64(nx),
                         calclim=everything, indices_in=pixels, saturation_protect=False) ** 2
    return out, time.perf_counter() - begin[0], time.process_time() - begin[1]

numba.set_num_threads(int(sys.argv[3]))
counts = np.load(sys.argv[1])
run(counts[:10, :10])
out, *seconds = run(counts)
np.save(sys.argv[4], out.reshape(counts.shape))
print(*seconds)
"""


def simulate(scan: int, detector: int, dose: float):
    """Return Poisson counts (scan, scan, detector, detector) of four grains."""
    import numpy as np

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:detector, :detector] - (detector - 1) / 2
    grains = np.full((4, detector, detector), 0.01) + 2.0 * (np.hypot(y, x) < 3)
    for grain in grains:
        for cy, cx in rng.uniform(-0.4 * detector, 0.4 * detector, (30, 2)):
            grain += rng.exponential(0.3) * (np.hypot(y - cy, x - cx) < 2.5)
    grains *= dose / grains.sum(axis=(1, 2), keepdims=True)
    half = np.arange(scan) >= scan // 2
    return rng.poisson(grains[2 * half[:, None] + half]).astype(np.uint16)


def rates(threads: int) -> tuple[float, float, float]:
    """Return what the machine can do now, per second, on all its threads: multiply-adds, roots, bytes copied.

    Numbers are float32. Every thread has its own matrices and blocks; roots stay in the first cache; `OMP_NUM_THREADS`
    is 1.
    """
    import numpy as np

    matrices = [np.ones((1536, 1536), np.float32) for _ in range(threads)]
    products = [np.empty_like(matrix) for matrix in matrices]
    few = [np.ones(4096, np.float32) for _ in range(threads)]
    roots = [np.empty_like(some) for some in few]
    blocks = [np.ones(2**26, np.uint8) for _ in range(threads)]
    copies = [np.ones_like(block) for block in blocks]

    def root(k):
        for _ in range(ROOTS):
            np.sqrt(few[k], out=roots[k])

    product = _least(threads, lambda k: np.matmul(matrices[k], matrices[k], out=products[k]))
    rooting = _least(threads, root)
    copy = _least(threads, lambda k: np.copyto(copies[k], blocks[k]))
    return (
        threads * matrices[0].shape[0] ** 3 / product,
        threads * ROOTS * few[0].size / rooting,
        threads * 2 * blocks[0].nbytes / copy,
    )


def _least(threads: int, work, runs: int = 5) -> float:
    with ThreadPoolExecutor(threads) as pool:
        return min(_seconds(lambda: list(pool.map(work, range(threads)))) for _ in range(runs))


def _seconds(work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def bound(shape, compared: int, threads: int) -> tuple[float, float]:
    """Return the least seconds that arithmetic and memory allow.

    Each of 40 pairs per pattern costs a subtraction and a multiply-add per compared pixel, each of 81 weights a
    multiply-add per pixel; both kinds go to the same vector units (those of 512 bits have none of their own for
    subtractions). Roots are taken of the compared pixels in both passes, and once of all. Memory: counts are read
    twice, roots are written and read in two passes, values and averages written and read once, as if caches had no
    end.
    """
    positions, pixels = shape[0] * shape[1], shape[2] * shape[3]
    multiply_adds, roots, bandwidth = rates(threads)
    arithmetic = (40 * 2 * compared + 81 * pixels) / multiply_adds + (2 * compared + pixels) / roots
    moved = 2 * 2 * pixels + 2 * 2 * 4 * compared + 2 * 2 * 4 * pixels
    return positions * arithmetic, positions * moved / bandwidth


def beside_the_card(given) -> list[str]:
    """Return the lines of the table of the processor and a graphics card, with how far the two agree."""
    import numpy as np

    counts = simulate(given.scan, given.detector, given.dose)
    lines = [
        f"scan {counts.shape}",
        f"{'distance':11} {'device':7} {'seconds':>8} {'patterns/s':>11}  largest difference",
    ]
    for distance in ("pattern", "projection"):
        made = {}
        for device in ("cpu", given.device):
            out, _, wall, _ = average(counts, given.threads, 3, device=device, distance=distance)
            made[device] = out
            apart = np.abs(out - made["cpu"]).max() / made["cpu"].max()
            each = counts.shape[0] * counts.shape[1] / wall
            lines.append(f"{distance:11} {device:7} {wall:8.2f} {each:11.0f}  {apart:.1e} of the largest average")
    return lines


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival", help="a Python with pyebsdindex 0.3.10")
    parser.add_argument("--device", help="cuda: compare the processor with a graphics card")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scan", type=int, default=64)
    parser.add_argument("--detector", type=int, default=128)
    parser.add_argument("--dose", type=float, default=1000.0)
    parser.add_argument("--lambda", type=float, default=1.7, dest="lambda_value")
    return parser.parse_args()


def average(counts, threads: int, runs: int = 1, device: str = "cpu", **settings):
    """Return averages, the pixels compared, and the least wall and processor seconds of a few runs."""
    import numpy as np

    from fourdstem.cube import Cube
    from fourdstem.methods import nonlocal_average
    from fourdstem.methods.nonlocal_average.source import open_source

    params, out = nonlocal_average.Params(**settings), np.empty(counts.shape, np.float32)
    nonlocal_average.compute(Cube(counts[:12, :12], threads=threads), params, out[:12, :12], device=device)
    cube, wall, processor = Cube(counts, threads=threads), [], []
    for _ in range(runs):
        begin = time.process_time()
        wall.append(_seconds(lambda: nonlocal_average.compute(cube, params, out, device=device)))
        processor.append(time.process_time() - begin)
    return out, open_source(cube, params, None).pixels, min(wall), min(processor)


def beside_the_rival(given) -> list[str]:
    """Return the lines of the table of both."""
    import numpy as np

    counts = simulate(given.scan, given.detector, given.dose)
    settings = {"average_in": "sqrt", "lambda_value": given.lambda_value, "distance": "pattern"}
    out, pixels, ours, ours_cpu = average(counts, given.threads, 5, **settings)
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("counts.npy", "averages.npy", "pixels.npy")]
        np.save(files[0], counts)
        np.save(files[2], np.ravel_multi_index(tuple(pixels.T), counts.shape[2:]))
        command = [given.rival, "-c", RIVAL, files[0], str(given.lambda_value), str(given.threads), *files[1:]]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        rival, rival_cpu = (float(word) for word in said.split()[-2:])
        difference = np.abs(np.load(files[1]) - out).max() / out.max()
    arithmetic, memory = bound(counts.shape, len(pixels), given.threads)
    return [
        f"scan {counts.shape}, {given.threads} threads, window of 81 patterns",
        f"pyebsdindex      {rival:8.2f} s   processor time {rival_cpu:.2f} s",
        f"fourdstem        {ours:8.2f} s   processor time {ours_cpu:.2f} s",
        f"times as fast    {rival / ours:8.1f}     by processor time {rival_cpu / ours_cpu:.1f}",
        f"arithmetic bound {arithmetic:8.2f} s   reached within {ours / arithmetic:.1f}",
        f"memory bound     {memory:8.2f} s   reached within {ours / memory:.1f}",
        f"largest difference of the averages {difference:.1e} of the largest average",
    ]


def beside_each_other(given) -> list[str]:
    """Return the lines of the table of searches and distances on two scans."""
    lines = [f"{'search':8} {'distance':11} {'positions':>10} {'seconds':>8} {'processor':>10} {'µs each':>8}"]
    for scan in (given.scan, 2 * given.scan):
        counts = simulate(scan, given.detector, given.dose)
        for search in ("window", "global"):
            for distance in ("pattern", "projection"):
                _, _, wall, processor = average(counts, given.threads, search=search, distance=distance)
                each = 1e6 * processor / scan**2
                lines.append(f"{search:8} {distance:11} {scan**2:10} {wall:8.2f} {processor:10.2f} {each:8.0f}")
    return lines


def main() -> None:
    """Write a table to standard output. On a busy machine trust the processor times."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("set OMP_NUM_THREADS=1: each thread of the comparison multiplies matrices by itself")
    given = arguments()
    compared = beside_the_rival if given.rival else beside_the_card if given.device else beside_each_other
    lines = compared(given)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
