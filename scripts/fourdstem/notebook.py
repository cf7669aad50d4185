"""Runs a notebook with papermill and makes a page of it that needs no network."""

import os
import re
import sys
import tempfile
from html import escape
from pathlib import Path

import nbformat
from traitlets.config import Config

from fourdstem.errors import FourdstemError, InputError
from fourdstem.files import write_text
from fourdstem.page import PAGE

INJECTED = "injected-parameters"


def execute(notebook, log, parameters: dict, sections) -> None:
    """Run a notebook into ``log``; where a cell fails, what ran and the traceback stay there.

    Parameters
    ----------
    notebook : path-like
    log : path-like
        Receives the executed notebook, cell by cell.
    parameters : dict
        Injected below the cell with the tag "parameters".
    sections : iterable of str
        A cell with the tag ``needs-X`` is left out unless X is among them.
    """
    import papermill

    content = nbformat.read(notebook, as_version=4)
    content.cells = [cell for cell in content.cells if _needs(cell) <= set(sections)]
    with tempfile.TemporaryDirectory() as home:
        _prepare_kernel(home)
        options = {"kernel_name": "python3", "progress_bar": False, "log_output": False, "config": _transport(home)}
        try:
            papermill.execute_notebook(content, str(log), parameters, **options)
        except papermill.PapermillExecutionError as error:
            if error.ename == InputError.__name__:
                raise FourdstemError(error.evalue) from None
            raise RuntimeError(f"cell {error.exec_count} of {log} failed: {error.ename}: {error.evalue}") from error


def _needs(cell) -> set[str]:
    return {tag.removeprefix("needs-") for tag in cell.metadata.get("tags", []) if tag.startswith("needs-")}


def _prepare_kernel(home: str) -> None:
    """Let the kernel be this Python, find this package, and read nothing of the user's Jupyter or IPython."""
    scripts = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([scripts, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        os.environ[name] = home
    if Path(sys.executable).parent not in map(Path, os.environ.get("PATH", "").split(os.pathsep)):
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _transport(home: str) -> Config:
    """Talk to the kernel through socket files of its own, not open ports, which two reports at once can both take.

    Without a name of its own the socket would lie in the working folder, the same for every report.
    """
    sockets = os.path.join(home, "kernel")
    short = len(sockets) < 100  # the system allows about 107 bytes; a longer path leaves only the ports
    return Config({"KernelManager": {"transport": "ipc", "ip": sockets} if short else {"transport": "tcp"}})


def store(executed, path) -> None:
    """Write an executed notebook without times, folders and random names."""
    content = nbformat.read(executed, as_version=4)
    content.metadata.pop("papermill", None)
    for cell in content.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if INJECTED in cell.metadata.get("tags", []):
            cell["id"] = INJECTED
    write_text(path, nbformat.writes(content) + "\n")


def to_html(notebook, path, title: str) -> None:
    """Write a notebook's text and outputs, without its code, as one self-contained page."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    body, _ = exporter.from_filename(str(notebook))
    headings = re.findall(r"<h2.*?>(.*?)</h2>", body)
    for k in range(len(headings)):
        body = re.sub(r"<h2>", f'<h2 id="section-{k + 1}">', body, count=1)
    links = "\n".join(f'<a href="#section-{k + 1}">{text}</a>' for k, text in enumerate(headings))
    page = PAGE.replace("{{title}}", escape(title)).replace("{{links}}", links).replace("{{body}}", body)
    write_text(path, page)
