"""A stand-in for the command `conda`: what Snakemake asks of it, answered with venv and pip.

It makes an environment from its YAML file as conda would see it: that Python, those packages and what they need, and
nothing else. Versions are those of the file, narrowed by the pins of requirements.txt. `install` puts it on PATH.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = {
    "--version": "conda 25.1.0",
    "config --get channel_priority --json": json.dumps({"get": {"channel_priority": "strict"}}),
    "clean -y --tarballs": "nothing to clean",
}
ACTIVATE = 'export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\n'


def install(base):
    """Make ``base/bin/conda`` and ``base/bin/activate``, and return ``base/bin``."""
    folder = Path(base) / "bin"
    folder.mkdir(parents=True)
    (folder / "activate").write_text(ACTIVATE)
    (folder / "conda").write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{Path(__file__).resolve()}" "{base}" "$@"\n')
    (folder / "conda").chmod(0o755)
    return folder


def create(file, prefix):
    """Make the environment of a file with the Python that it names, or with the one that STAND_IN_PYTHON names."""
    table = tomllib.loads((ROOT / "envs" / "versions.toml").read_text(encoding="utf-8"))
    pip_name = {entry.get("conda", name): name for name, entry in (table["packages"] | table["apart"]).items()}
    pip_name |= {name: name for name in table["testing"]}  # a study asks for one of them
    specs = dict(re.findall(r"^  - (\S+) =([\d.]+)$", Path(file).read_text(encoding="utf-8"), re.M))
    command = f"python{specs.pop('python')}"
    python = os.environ.get("STAND_IN_PYTHON") or shutil.which(command) or sys.exit(f"no {command} on PATH")
    subprocess.run([python, "-m", "venv", *([] if specs else ["--without-pip"]), prefix], check=True)
    wanted = [f"{pip_name[name]}=={version}.*" for name, version in specs.items()]
    if wanted:
        pip = [f"{prefix}/bin/python", "-m", "pip", "install", "-q", "--no-compile", "-c", ROOT / "requirements.txt"]
        pip += ["-c", ROOT / "requirements-test.txt"]
        subprocess.run([*pip, *wanted], check=True)


def main(base, *arguments):
    """Answer, or refuse what Snakemake did not ask when this was written."""
    asked = " ".join(arguments)
    made = re.fullmatch(r"env create --quiet --no-default-packages --file (.+) --prefix (.+)", asked)
    if asked == "info --json":
        print(json.dumps({"conda_prefix": base, "platform": "linux-64"}))
    elif made:
        create(*made.groups())
    else:
        print(ANSWERS.get(asked) or sys.exit(f"the stand-in does not know `conda {asked}`"))


if __name__ == "__main__":
    main(*sys.argv[1:])
