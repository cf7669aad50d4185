"""Training by hand, where there is a fast device: ``PYTHONPATH=scripts python -m fourdstem.methods.training --help``.

Needs torch, numpy, scipy and numba, nothing else of the project's environments.
"""

import argparse
import dataclasses
import hashlib
import sys
import time
from pathlib import Path

from fourdstem.methods.training import compute
from fourdstem.methods.training.settings import Params
from fourdstem.methods.training.writing import write


def main(arguments=None) -> int:
    """Train, and write everything into a folder; returns how many networks failed."""
    parser = argparse.ArgumentParser(prog="python -m fourdstem.methods.training", description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder for weights, model card, curves, table, log")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--checkpoints", help="folder of checkpoints; a training goes on from what is there")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that compute patterns; 0: the one that trains"
    )
    for field in dataclasses.fields(Params):
        many = isinstance(field.default, tuple)
        kind = float if many else type(field.default)
        more = {"nargs": len(field.default)} if many else {}
        choices = field.metadata["choices"]
        parser.add_argument(
            f"--{field.name}", type=kind, default=field.default, choices=choices, help=field.metadata["doc"], **more
        )
    given = parser.parse_args(arguments)
    names = [field.name for field in dataclasses.fields(Params)]
    params = Params(**{n: tuple(v) if isinstance(v := getattr(given, n), list) else v for n in names})
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    if given.checkpoints:
        Path(given.checkpoints).mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with open(out / "training.log", "a", encoding="utf-8", buffering=1) as file:

        def log(line):
            text = f"{time.monotonic() - start:7.1f} s  {line}"
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
            file.write(text + "\n")

        result = compute(params, given.device, log, lambda r: write(r, out, _code()), given.checkpoints, given.workers)
        log(f"done, failed: {result.failures or 'none'}")
    return len(result.failures)


def _code() -> str:
    """Fingerprint of the library's files that take part."""
    library = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in sorted([*library.glob("networks/*.py"), *library.glob("methods/training/*.py")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
