"""The whole workflow on a small simulated scan: what the tests that run it share."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "mein Versuch ä.yaml"
CONFIG = """\
phases:
  - {name: gold, cif: config/cif/gold.cif}
samples:
  - name: mini
    simulate:
      {specimen: film, seed: 3, scan_shape: [16, 16], detector_shape: [64, 64], detector_pixel_inv_angstrom: 0.04,
       grains: 4, convergence_mrad: 2.0}
    phases: [gold]
    stages: [virtual_image, nonlocal_average, grains]
orientation: {sampling_deg: 3.0, calibration_patterns: 400}
"""
RESULTS = ("simulated.h5", "scan.h5", "preprocess.h5", "virtual_image.h5", "nonlocal_average.h5", "evaluation.h5")
TEXTS = ("evaluation.csv", *(f"orientation/{s}.{kind}" for s in ("corrected", "averaged") for kind in ("ang", "ctf")))
TEXTS += ("grains/averaged.csv", "grains/averaged_boundaries.csv")
MAPS = tuple(f"orientation/{s}{kind}.h5" for s in ("corrected", "averaged") for kind in ("", "_orix"))
MAPS += ("grains/corrected.h5", "grains/averaged.h5")


def snakemake(folder, *arguments, check=True):
    command = [sys.executable, "-m", "snakemake", "--configfile", NAME, *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    output = done.stdout + done.stderr
    assert done.returncode == 0 or not check, output[-4000:]
    return output


def hashes(folder):
    sample = folder / "results" / "mini"
    files = [*RESULTS, *MAPS, *TEXTS, *(f"figures/{p.name}" for p in sorted((sample / "figures").glob("*.p*")))]
    return {name: hashlib.sha256((sample / name).read_bytes()).hexdigest() for name in files}


def copy_of_project(target):
    skip = shutil.ignore_patterns(".venv", ".git", "results", ".snakemake", "__pycache__", ".pytest_cache", ".*_cache")
    shutil.copytree(ROOT, target, ignore=skip)


def run_once(target):
    """Copy the project and run it to its reports; the scripts that Snakemake started stay, to be started again."""
    copy_of_project(target)
    (target / NAME).write_text(CONFIG, encoding="utf-8")
    snakemake(target, "--cores", "2", "--skip-script-cleanup")
    return target
