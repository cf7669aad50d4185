"""What surrounds every job: log, threads, settings, sidecar. The only module that knows Snakemake's job object.

A script imports only this at the top, and everything else inside ``with stage(snakemake) as job``, so that log,
threads and cache folders exist before numba or torch is loaded.
"""

import fcntl
import json
import logging
import os
import platform
import resource
import signal
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from fourdstem import origins, provenance
from fourdstem.errors import FourdstemError, InputError
from fourdstem.files import NO_ROOM, denied, disk_full
from fourdstem.watch import watched

log = logging.getLogger("fourdstem")
# Packages whose version can change a result; those that the job has loaded are recorded.
RECORDED = {
    "numpy": "numpy", "scipy": "scipy", "numba": "numba", "torch": "torch", "h5py": "h5py", "hdf5plugin": "hdf5plugin",
    "sklearn": "scikit-learn", "skimage": "scikit-image", "orix": "orix", "diffsims": "diffsims", "spglib": "spglib",
    "rsciio": "rosettasciio", "tifffile": "tifffile", "matplotlib": "matplotlib", "papermill": "papermill",
    "abtem": "abTEM", "ase": "ase",
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
    began: dict = field(default_factory=dict)  # the stamps of what it reads, before it read anything

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
        inputs = [entry for entry in self.inputs if not is_sidecar(entry["path"])]
        settings = self.recorded_settings
        return {
            "stage": self.stage,
            "settings": settings,
            "seed": settings.get("seed"),
            "code": self.params.code,
            "inputs": [{"path": e["path"], "sha256": e["sha256"]} for e in inputs],
            "versions": versions(),
        }

    @cached_property
    def inputs(self) -> list[dict]:
        """Every file that the job reads, with its sha256 and the stamp that it had when the job began."""
        entries = provenance.describe(_paths(self.input))
        for entry in entries:
            if entry["stamp"] != self.began.get(entry["path"]):
                raise _changed_meanwhile(entry["path"])
        return entries

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
    An error, or a signal to end, leaves the cause as the last entry of the log, none of the job's outputs, and an exit
    status other than 0. What the stages before recorded of the files that they wrote and read is compared with the
    files first; at the end, what this job read must be what it was at the beginning, and the loaded modules must be
    those of its environment.
    """
    started = time.time()
    path = Path(snakemake.log[0])
    with _one_at_a_time(path), _signals_that_end():
        _open_log(path)
        _set_environment(snakemake.threads)
        origins.leave_out_snakemake()
        job = _job(snakemake)
        name = f"{job.stage} {job.sample}".strip()
        log.info("%s: start, %d threads, %.0f MB", name, job.threads, job.memory_mb)
        try:
            job.began = provenance.stamps(_paths(job.input))
            _check_inputs(_paths(job.input))
            with watched(path, [p for p in _paths(job.input) if not is_sidecar(p)]):
                yield job
            _check_unchanged(job)
            leaked = _check_modules()
            if "sidecar" in dict(job.output.items()):  # the record at the end of the chain has none
                _write_sidecar(job, started, leaked)
        except (Exception, KeyboardInterrupt) as error:
            _remove_outputs(job)
            _explain(error, path)
            if NO_ROOM in str(error) or disk_full(error, path):
                _leave_at_once()
            raise SystemExit(130 if _stopped(error) else 1) from None
        log.info("%s: done in %.1f s, peak %.0f MB", name, time.time() - started, _peak_memory_mb())


def _job(snakemake) -> Job:
    return Job(
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


@contextmanager
def _one_at_a_time(path: Path):
    """Wait while a process that a killed Snakemake left behind still makes the same results."""
    folder = Path(".snakemake/fourdstem")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / (str(path).replace("/", "%") + ".lock")).open("a+", encoding="utf-8")
    except OSError as error:
        _give_up(error, folder)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            sys.stderr.write(f"waiting for process {file.read().strip()}, which still makes these results ({path})\n")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            sys.stderr.write(
                f"WARNING no locks in {folder.absolute()} ({error}): take care that only one run is under way\n"
            )
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        yield


@contextmanager
def _signals_that_end():
    """Let SIGTERM, by which clusters end jobs, clean up as Ctrl-C does."""

    def end(number, _):
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_inputs(paths: list[str]) -> None:
    """Refuse files that are no longer what a stage before recorded in its sidecar: its results, and what it read."""
    wanted, read = {}, {}
    for path in filter(is_sidecar, paths):
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        wanted |= {entry["path"]: entry["sha256"] for entry in record.get("outputs", [])}
        read |= {e["path"]: (e, record) for e in record.get("inputs", []) if not is_sidecar(e["path"])}
    for path in paths:
        if path in wanted and provenance.sha256(path) != wanted[path]:
            raise InputError(
                "a result that was changed after it was made",
                where=path,
                expected=f"sha256 {wanted[path]}",
                do="Delete this file and run again: it will be made anew.",
            )
    for path, (entry, record) in read.items():
        if path not in wanted and os.path.exists(path) and not provenance.unchanged(entry):
            raise InputError(
                f"a file that was changed after {record['stage']} had read it",
                where=path,
                expected=f"sha256 {entry['sha256']}",
                do=f"Delete {record['outputs'][0]['path']} and run again: everything made of this file is made anew.",
            )


def _check_unchanged(job: Job) -> None:
    for entry in job.inputs:
        if not provenance.unchanged(entry):
            raise _changed_meanwhile(entry["path"])


def _changed_meanwhile(path: str) -> InputError:
    return InputError(
        "a file that was changed while this job read it",
        where=path,
        expected="files that stay as they are during a run",
        do="Run again when nothing writes to it any more; no result was kept.",
    )


def _remove_outputs(job: Job) -> None:
    """Leave nothing of a job that failed: its results may be of half the data, or of data that changed."""
    for path in _paths(job.output):
        for file in provenance.files_of(path):
            file.unlink(missing_ok=True)


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
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    except OSError as error:
        _give_up(error, path.parent)
    logging.raiseExceptions = False  # a log that finds no room must not bury the cause, which the terminal gets too
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
    os.environ.setdefault("FOURDSTEM_CACHE_DIR", str(Path(".snakemake/templates").absolute()))
    os.environ.setdefault("MPLCONFIGDIR", str(Path(".snakemake/matplotlib").absolute()))
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")


def _explain(error: BaseException, path: Path) -> None:
    """Log the cause in one line; a mistake that the user can mend needs no traceback, anything else has it."""
    if (stopped := _stopped(error)) is not None:
        cause = f"ended by {stopped if stopped.args else 'SIGINT'}; nothing of this job was kept. Run again to go on."
    elif isinstance(error, FourdstemError):
        cause = str(error)
    elif (known := disk_full(error, getattr(error, "filename", None) or path.parent.parent)) is not None:
        cause = str(known)
    else:
        cause = f"{type(error).__name__}: {error}"
        with suppress(OSError), path.open("a", encoding="utf-8") as file:  # where there is no room for it
            file.write("".join(traceback.format_exception(error)))
    log.error("%s  [log: %s]", " ".join(cause.split()), path)


def _leave_at_once() -> None:
    """End without tidying: HDF5 tries to write the rest of a file that found no room once more, and may crash."""
    logging.shutdown()
    os._exit(1)


def _stopped(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interruption that an error is, or that it came up in tidying after."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def _give_up(error: OSError, folder: Path):
    """End the job before there is a log: the terminal is all that can be written to."""
    known = denied(error, folder.absolute()) or disk_full(error, folder.absolute())
    sys.stderr.write(f"ERROR {known or error}  [no log]\n")
    raise SystemExit(1) from None


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
        "inputs": job.inputs,
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
