"""Which loaded modules came from another environment than the one that the job runs in. Standard library only.

Snakemake appends its own whole search path to that of a script: a package that is missing in the environment of a rule
is silently taken from the environment of Snakemake, in whatever version it has there, and an optional one as well.
"""

import os
import site
import sys
import sysconfig
from pathlib import Path

# The job object is Snakemake's, so these come from where Snakemake runs, with any environment.
EXPECTED = ("snakemake", "snakemake_interface_")
OWN = str(Path(__file__).parent)


def leave_out_snakemake() -> None:
    """Take what Snakemake has appended off the search path, where the job runs in another environment than Snakemake.

    What Snakemake has loaded for its job object stays loaded, and this library can still be found.
    """
    host = snakemake_folder()
    if host in sys.path:
        first = sys.path.index(host)
        sys.path[first:] = [folder for folder in sys.path[first:] if folder == str(Path(OWN).parent)]


def leaked_modules() -> list[dict]:
    """Return ``[{name, origin}]`` of loaded third-party modules that are not from the active environment.

    ``origin`` is "snakemake" (the environment that Snakemake runs in, another one than this), "user" (the user's own
    site-packages, under conda) or "elsewhere" (such as PYTHONPATH, or a package installed to be edited).
    """
    known = _spellings([*environment_folders(), OWN])
    found = {}
    for name, module in list(sys.modules.items()):
        file, top = getattr(module, "__file__", None), name.split(".")[0]
        if not isinstance(file, str) or not os.path.isabs(file) or top in ("__main__", "__mp_main__"):
            continue  # built in, a namespace, or the script itself
        if top in sys.stdlib_module_names or _is_expected(top) or _lies_in(file, known) or _is_standard(file):
            continue
        found[top] = _origin(file)
    return [{"name": name, "origin": origin} for name, origin in sorted(found.items())]


def environment_folders() -> list[str]:
    """Return the folders that packages of the active environment lie in."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    # Under conda a package of the user's own would come before the environment's: not what its file asks for.
    if site.ENABLE_USER_SITE and not _is_conda():
        folders.append(site.getusersitepackages())
    return folders


def snakemake_folder() -> str | None:
    """Return the folder of Snakemake's environment where the job runs in another one, else None."""
    file = getattr(sys.modules.get("snakemake"), "__file__", None)
    if file is None:
        return None
    folder = str(Path(file).parents[1])
    asked = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    own = _spellings([*environment_folders(), site.getusersitepackages(), *asked])
    return None if _lies_in(file, own) else folder


def _is_conda() -> bool:
    prefix = os.environ.get("CONDA_PREFIX")
    return prefix is not None and os.path.realpath(prefix) == os.path.realpath(sys.prefix)


def _is_expected(top: str) -> bool:
    return top == EXPECTED[0] or top.startswith(EXPECTED[1])


def _is_standard(file: str) -> bool:
    """Tell the standard library's files that are no public module; a venv has them from the Python it was made with."""
    folders = _spellings([sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")])
    return _lies_in(file, folders) and not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _origin(file: str) -> str:
    host = snakemake_folder()
    if host is not None and _lies_in(file, _spellings([host])):
        return "snakemake"
    return "user" if _lies_in(file, _spellings([site.getusersitepackages()])) else "elsewhere"


def _spellings(folders) -> tuple[str, ...]:
    """Return folders as they were given and with links followed, ending in a separator."""
    absolute = [os.path.abspath(folder) for folder in folders]
    return tuple({os.path.join(path, "") for folder in absolute for path in (folder, os.path.realpath(folder))})


def _lies_in(file: str, folders: tuple[str, ...]) -> bool:
    return os.path.normpath(file).startswith(folders)
