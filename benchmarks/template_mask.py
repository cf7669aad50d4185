"""Times template masks against one sequential read of the same file, and against LiberTEM's mask sums.

    PYTHONPATH=scripts python benchmarks/template_mask.py --folder DIR [--scan 256] [--detector 128] [--rival PY]

Writes a raw uint16 file of Poisson counts once (SCAN² x DETECTOR² x 2 bytes), reads it, and runs the whole method
with four picture templates in a process of its own: classical images, masks, cross-fitted images, decoys, shifted
templates and, unless ``--plain``, their slopes. That is two passes: one for classical images and sums from which masks
are learned, one to apply them. Columns found in the scan (``--found``: three passes) need its classical images first.
``--rival`` is the Python of an environment with LiberTEM, whose ApplyMasks applies as many masks as ours once, in one
process; it learns none. Before each reading the page cache is dropped where the system allows (`posix_fadvise`), and
everything was compiled before. Memory is anonymous memory; pages of the mapped file that are in use come on top.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # as every stage does: one in each of its own threads

import numpy as np  # noqa: E402

CHUNK = 64 * 2**20
TEMPLATES = 4
RIVAL = """
import os, sys, time, numpy as np, libertem.api as lt
path, scan, detector, columns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
weights = np.random.default_rng(0).normal(size=(columns, detector, detector)).astype(np.float32)
with lt.Context.make_with("inline") as ctx:
    data = ctx.load("raw", path=path, dtype="uint16", nav_shape=(scan, scan), sig_shape=(detector, detector))
    from libertem.udf.masks import ApplyMasksUDF
    for _ in range(2):  # the first run compiles
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began, cpu = time.perf_counter(), time.process_time()
        udf = ApplyMasksUDF(mask_factories=lambda: weights, mask_count=columns, mask_dtype=np.float32)
        ctx.run_udf(dataset=data, udf=udf)
    print(time.perf_counter() - began, time.process_time() - cpu)
"""


def make(path: Path, scan: int, detector: int) -> None:
    """Write the scan: a bright disk whose counts follow a square lattice of columns."""
    y, x = np.indices((detector, detector)) - (detector - 1) / 2
    disk = (np.hypot(y, x) < 0.3 * detector).astype(np.float32)
    rng = np.random.default_rng(0)
    pool = rng.poisson(np.broadcast_to(disk * 4 + 0.05, (2048, detector, detector))).astype(np.uint16)
    with path.open("wb") as file:
        for _ in range(scan):
            file.write(pool[rng.integers(0, len(pool), scan)].tobytes())


def drop(path: Path) -> None:
    """Ask the system to forget the file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Path) -> float:
    """Return the seconds of one sequential read."""
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        room = bytearray(CHUNK)
        while file.readinto(room):
            pass
    return time.perf_counter() - began


class Watch:
    """Largest anonymous memory of this process in MB, seen every 10 ms."""

    def __enter__(self):
        self.peak, self.done = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self) -> None:
        while not self.done.wait(0.01):
            line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("RssAnon"))
            self.peak = max(self.peak, int(line.split()[1]) / 1024)

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def applied(plain: bool) -> int:
    """Return how many masks the last pass applies: templates with their slopes, and squares for the noise."""
    return TEMPLATES * (5 if plain else 13) + TEMPLATES


def run(path: Path, scan: int, detector: int, threads: int, plain: bool, found: bool = False) -> dict:
    """Run the method once to compile, then on the file."""
    from fourdstem.calibration import Acquisition
    from fourdstem.cube import Correction, Cube
    from fourdstem.methods import template_mask
    from fourdstem.methods.template_mask import templates
    from fourdstem.methods.template_mask.sites import gaussians
    from fourdstem.schema import build

    step = (0.25, 0.25)

    def cube(counts):
        centre = np.full((*counts.shape[:2], 2), (detector - 1) / 2)
        correction = Correction(centre, np.eye(2), np.zeros((detector, detector), bool), 0.0, 1.0)
        known = Acquisition(scan_step_angstrom=step)
        return Cube(counts, acquisition=known, correction=correction, memory_mb=1000, threads=threads)

    def pictures(shape):
        grid = np.stack(np.meshgrid(*(np.arange(4.0, n, 16) for n in shape), indexing="ij"), -1).reshape(-1, 2)
        return {f"s{k}": gaussians(grid + 4 * np.array([k // 2, k % 2]), 0.35, shape, step) for k in range(TEMPLATES)}

    if found:
        templates.only_pictures = lambda params: False  # as for columns that are found: images come first
    blocks = [{"species": f"s{k}", "file": "-"} for k in range(TEMPLATES)]
    params = build(template_mask.Params, {"templates": blocks, "slopes": not plain})
    data = np.memmap(path, np.uint16, "r", shape=(scan, scan, detector, detector))
    template_mask.compute(cube(np.array(data[:32, :32])), params, 0.3 * detector, pictures=pictures((32, 32)))
    drop(path)
    with Watch() as watch:
        began, cpu = time.perf_counter(), time.process_time()
        template_mask.compute(cube(data), params, 0.3 * detector, pictures=pictures((scan, scan)))
        wall, busy = time.perf_counter() - began, time.process_time() - cpu
    return {"wall_s": wall, "processor_s": busy, "peak_anonymous_mb": watch.peak}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scan", type=int, default=256)
    parser.add_argument("--detector", type=int, default=128)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rival", help="Python with libertem")
    parser.add_argument("--plain", action="store_true", help="without slopes")
    parser.add_argument("--found", action="store_true", help="one pass more, as for columns found in the scan")
    options = parser.parse_args()
    path = options.folder / f"masks_{options.scan}_{options.detector}.raw"
    if not path.exists():
        make(path, options.scan, options.detector)
    drop(path)
    seconds = read(path)
    print(json.dumps({**vars(options), "folder": "", "rival": bool(options.rival), "masks": applied(options.plain)}))
    print(f"{path.stat().st_size / 2**20:.0f} MB; one sequential read {seconds:.2f} s", flush=True)
    found = run(path, options.scan, options.detector, options.threads, options.plain, options.found)
    print(json.dumps(found), f"{found['wall_s'] / seconds:.2f} reads", flush=True)
    if options.rival:
        bare = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        size = [str(n) for n in (options.scan, options.detector, applied(options.plain))]
        drop(path)
        done = subprocess.run(
            [options.rival, "-c", RIVAL, path, *size], capture_output=True, text=True, check=True, env=bare
        )
        wall, busy = map(float, done.stdout.split()[-2:])
        print(f"LiberTEM, {size[2]} masks once: {wall:.2f} s, processor {busy:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
