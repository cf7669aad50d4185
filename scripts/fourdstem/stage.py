"""What surrounds every job: log, threads, settings, sidecar. The only module that knows Snakemake's job object.

A script imports only this at the top, and everything else inside ``with stage(snakemake) as job``, so that log,
threads and cache folders exist before numba or torch is loaded.
"""

import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fourdstem import origins, provenance
from fourdstem.errors import FourdstemError, InputError

log = logging.getLogger("fourdstem")
# Packages whose version can change a result; those that the job has loaded are recorded.
RECORDED = {
    "numpy": "numpy", "scipy": "scipy", "numba": "numba", "torch": "torch", "h5py": "h5py", "hdf5plugin": "hdf5plugin",
    "sklearn": "scikit-learn", "skimage": "scikit-image", "orix": "orix", "diffsims": "diffsims", "spglib": "spglib",
    "rsciio": "rosettasciio", "tifffile": "tifffile", "matplotlib": "matplotlib", "papermill": "papermill",
}  # fmt: skip


@dataclass
class Job:
    """One job as its script sees it.

    Attributes
    ----------
    input, output, params, wildcards, log
        Snakemake's, by name.
    memory_mb, threads
        What the job may use; never part of a result.
    """

    input: Any
    output: Any
    params: Any
    wildcards: Any
    log: Any
    memory_mb: float
    threads: int
    stage: str
    sample: str
    wanted_device: str
    needed: tuple[str, ...] = ()
    used_device: str = "cpu"

    @property
    def device(self) -> str:
        """ "cpu" or "cuda": the resource ``device`` of the rule, "auto" by default."""
        from fourdstem.device import pick

        self.used_device = pick(self.wanted_device)
        return self.used_device

    def settings(self, params: type):
        """Return the stage's settings as its ``Params``."""
        from fourdstem.schema import build

        return build(params, dict(self.params.settings))

    def say(self, text: str) -> None:
        """Tell the user something, on the terminal and in the log."""
        log.info(text)

    @property
    def process(self) -> dict:
        """What an HDF5 result says of its making: nothing that differs between equal runs."""
        inputs = [entry for entry in provenance.describe(_paths(self.input)) if not is_sidecar(entry["path"])]
        settings = self.recorded_settings
        return {
            "stage": self.stage,
            "settings": settings,
            "seed": settings.get("seed"),
            "code": self.params.code,
            "inputs": [{"path": e["path"], "sha256": e["sha256"]} for e in inputs],
            "versions": versions(),
        }

    @property
    def recorded_settings(self) -> dict:
        """Every parameter of the rule but the code's fingerprint."""
        named = dict(self.params.items())
        named.pop("code", None)
        return {**named.pop("settings", {}), **named}


def is_sidecar(path: str) -> bool:
    """Tell a sidecar from data by its folder."""
    return Path(path).parent.name == "provenance"


def versions() -> dict[str, str]:
    """Return Python's version and those of the loaded packages that can change a result."""
    loaded = {dist: metadata.version(dist) for module, dist in RECORDED.items() if module in sys.modules}
    return {"python": platform.python_version(), **loaded}


@contextmanager
def stage(snakemake):
    """Run a script's body as a job: ``with stage(snakemake) as job``.

    The log is opened first; threads and cache folders are set; when the body ends the sidecar is written.
    An error leaves the cause as the last entry of the log, and exit status 1. What the stages before recorded of
    their results is compared with the files first; where the loaded modules came from is checked last.
    """
    started = time.time()
    path = Path(snakemake.log[0])
    _open_log(path)
    _set_environment(snakemake.threads)
    origins.leave_out_snakemake()
    job = Job(
        input=snakemake.input,
        output=snakemake.output,
        params=snakemake.params,
        wildcards=snakemake.wildcards,
        log=snakemake.log,
        memory_mb=float(snakemake.resources.get("mem_mb", 2000)),
        threads=snakemake.threads,
        stage=snakemake.rule,
        sample=snakemake.wildcards.get("sample", ""),
        wanted_device=snakemake.resources.get("device", "auto"),
        needed=tuple(k for k in snakemake.resources.get("needed", "none").split() if k != "none"),
    )
    name = f"{job.stage} {job.sample}".strip()
    log.info("%s: start, %d threads, %.0f MB", name, job.threads, job.memory_mb)
    try:
        _check_inputs(_paths(job.input))
        yield job
        leaked = _check_modules()
        if "sidecar" in dict(job.output.items()):  # the record at the end of the chain has none
            _write_sidecar(job, started, leaked)
    except Exception as error:
        _explain(error, path)
        raise SystemExit(1) from None
    log.info("%s: done in %.1f s, peak %.0f MB", name, time.time() - started, _peak_memory_mb())


def _check_inputs(paths: list[str]) -> None:
    """Refuse a file that is no longer what the stage that made it recorded in its sidecar."""
    wanted = {}
    for path in filter(is_sidecar, paths):
        for entry in json.loads(Path(path).read_text(encoding="utf-8")).get("outputs", []):
            wanted[entry["path"]] = entry["sha256"]
    for path in paths:
        if path in wanted and provenance.sha256(path) != wanted[path]:
            raise InputError(
                "a result that was changed after it was made",
                where=path,
                expected=f"sha256 {wanted[path]}",
                do="Delete this file and run again: it will be made anew.",
            )


def _check_modules() -> list[dict]:
    """Return the modules of another environment; refuse those of Snakemake's where the rule has one of its own."""
    leaked = origins.leaked_modules()
    refused = [entry["name"] for entry in leaked if entry["origin"] == "snakemake"]
    if refused:
        raise InputError(
            f"packages that are not in the environment of the rule, taken from Snakemake's: {', '.join(refused)}",
            where=sys.prefix,
            expected="every package from the environment of the rule, whose file the result is recorded with",
            do="Add them to its file in envs/, or remove the environment, and Snakemake makes it anew.",
        )
    if leaked:
        names = ", ".join(f"{entry['name']} ({entry['origin']})" for entry in leaked)
        log.warning("not from the environment of this job, and recorded so: %s", names)
    return leaked


def _open_log(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    path.write_text("", encoding="utf-8")
    for handler in (logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler(sys.stderr)):
        handler.setFormatter(formatter)
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(log.handlers[0])


def _set_environment(threads: int) -> None:
    """One BLAS thread in each of our own threads: a product's bits must not depend on how it is split."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["NUMBA_NUM_THREADS"] = str(threads)
    os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(".snakemake/numba").absolute()))
    os.environ.setdefault("MPLCONFIGDIR", str(Path(".snakemake/matplotlib").absolute()))
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")


def _explain(error: Exception, path: Path) -> None:
    """Log the cause; a mistake that the user can mend needs no traceback, anything else has it."""
    cause = str(error)
    if not isinstance(error, FourdstemError):
        cause = f"{type(error).__name__}: {error}"
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(error)))
    log.error("%s  [log: %s]", cause, path)


def _paths(named) -> list[str]:
    return [str(p) for p in named]


def _peak_memory_mb() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children) / 1024


def _write_sidecar(job: Job, started: float, leaked: list[dict]) -> None:
    outputs = [p for p in _paths(job.output) if p != str(job.output.sidecar)]
    settings = job.recorded_settings
    content = {
        "stage": job.stage,
        "sample": job.sample,
        "settings": settings,
        "seed": settings.get("seed"),
        "code": job.params.code,
        "inputs": provenance.describe(_paths(job.input)),
        "outputs": provenance.describe(outputs),
        "versions": versions(),
        "leaked_modules": leaked,
        **_commit(),
        "command": " ".join(sys.argv),
        "host": platform.node(),
        "device": job.used_device,
        "threads": job.threads,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "peak_memory_mb": round(_peak_memory_mb(), 1),
    }
    provenance.write_record(job.output.sidecar, content)


def _commit() -> dict:
    """Return the commit of the code and whether it was edited; None where git or the repository is missing."""
    here = Path(__file__).parent

    def git(*args):
        done = subprocess.run(["git", "-C", here, *args], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", str(here.parent)))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
