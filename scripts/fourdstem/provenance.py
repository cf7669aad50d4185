"""Where every number comes from: code fingerprints, sidecars and the audit. Standard library only.

Each job leaves a sidecar, canonical JSON with the sha256 of what it read and wrote and a digest of itself.
``results/provenance.json`` lists every file; the sidecars chain it back to the raw file.
"""

import ast
import hashlib
import json
import os
from functools import cache
from pathlib import Path

from fourdstem.files import write_text

NOT_AUDITED = {"logs", ".snakemake_timestamp"}  # the second is Snakemake's mark in folders that it makes


@cache
def _sha256(path: str, _stamp: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def sha256(path) -> str:
    """Return the sha256 of a file's bytes (remembered within the process while its stamp stays)."""
    return _sha256(str(path), stamp(path))


def canonical(value) -> str:
    """Return JSON with one spelling: sorted keys, no spaces that could vary, UTF-8."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def digest(content: dict) -> str:
    """Return the sha256 of a record without its key ``digest``."""
    bare = {k: v for k, v in content.items() if k != "digest"}
    return hashlib.sha256(canonical(bare).encode()).hexdigest()


def write_record(path, content: dict) -> None:
    """Write a record with its digest; a half-written file never stands under the final name."""
    write_text(path, canonical({**content, "digest": digest(content)}))


def files_of(path) -> list[Path]:
    """Return the file itself, or every file below a directory, sorted."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name not in NOT_AUDITED)


def stamp(path) -> str:
    """Return what changes whenever a file is written to: size, times, inode. The last time cannot be set by hand."""
    stat = os.stat(path)
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def stamps(paths) -> dict[str, str]:
    """Return ``{file: stamp}`` of files and of all files below directories."""
    return {str(file): stamp(file) for path in paths for file in files_of(path)}


def describe(paths) -> list[dict]:
    """Return ``[{path, sha256, bytes, stamp}]`` of files and of all files below directories."""
    found = [file for path in paths for file in files_of(path)]
    return [{"path": str(p), "sha256": sha256(p), "bytes": p.stat().st_size, "stamp": stamp(p)} for p in found]


def unchanged(entry: dict) -> bool:
    """Tell whether a file holds the bytes that `describe` recorded; it is read only where its stamp differs."""
    return stamp(entry["path"]) == entry.get("stamp") or sha256(entry["path"]) == entry["sha256"]


# ---- code fingerprints ------------------------------------------------------------------------------------


def code_fingerprint(script, extra=()) -> str:
    """Return a digest of a script and of every fourdstem module that it can import.

    Comments, docstrings and layout do not count, so that only edits that can change a result rerun it.

    Parameters
    ----------
    script : path-like
        The script of a rule, in the folder that holds the package.
    extra : iterable of path-like
        Further files whose code counts; of a notebook only the code cells do.
    """
    root = Path(script).resolve().parent
    todo, seen = [Path(script).resolve(), *(Path(p).resolve() for p in extra)], {}
    while todo:
        path = todo.pop()
        key = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        if key in seen:
            continue
        tree = _tree(path)
        seen[key] = hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
        todo += imported_files(tree, path, root)
    return hashlib.sha256(canonical(seen).encode()).hexdigest()[:16]


def _tree(path: Path) -> ast.Module:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and body and _is_docstring(body[0]):
            node.body = body[1:] or [ast.Pass()]
    return tree


def _is_docstring(node) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def imported_files(tree: ast.AST, path: Path, root: Path) -> list[Path]:
    """Return the files of the package that a syntax tree imports, at any depth of its functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.relative_to(root).parts[: -node.level]
                base = ".".join([*package, *base.split(".")]) if base else ".".join(package)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    files = []
    for name in sorted(n for n in names if n.startswith("fourdstem.")):
        stem = root.joinpath(*name.split("."))
        files += [p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.exists()]
    return files


# ---- audit ------------------------------------------------------------------------------------------------


def collect(results, sidecars) -> dict:
    """Return the record of a whole results folder: every output of every sidecar, and the sidecars."""
    files = {}
    for sidecar in sorted(str(s) for s in sidecars):
        record = json.loads(Path(sidecar).read_text(encoding="utf-8"))
        files[sidecar] = sha256(sidecar)
        for entry in record["outputs"]:
            files[entry["path"]] = entry["sha256"]
    return {"results": str(results), "files": files}


def audit(results) -> list[str]:
    """Check every file of a results folder against the recorded hashes, back to the raw files.

    Returns
    -------
    list of str
        Lines ``changed|missing|extra|broken PATH``; empty when sound.

    Raises
    ------
    FileNotFoundError
        If the folder holds no ``provenance.json``.
    """
    results = Path(results).resolve()
    record_path = results / "provenance.json"
    if not record_path.is_file():
        raise FileNotFoundError(f"{record_path}: not found; run the workflow to its end first")
    record = read_record(record_path)
    if record is None or record.get("digest") != digest(record):
        return [f"broken {record_path}"]
    base = results.parents[len(Path(record["results"]).parts) - 1]
    findings = {line for path, wanted in record["files"].items() for line in _compare(base / path, wanted)}
    sidecars = [p for p in record["files"] if _is_sidecar(p)]
    findings |= _audit_chain(base, sidecars)
    known = {(base / p).resolve() for p in record["files"]} | {record_path}
    findings |= {f"extra {p}" for p in _present(results) if p not in known}
    return sorted(findings)


def read_record(path):
    """Return a record; None where it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None


def _is_sidecar(path: str) -> bool:
    return Path(path).parent.name == "provenance" and path.endswith(".json")


def _compare(path: Path, wanted: str) -> list[str]:
    if not path.is_file():
        return [f"missing {path}"]
    return [] if sha256(path) == wanted else [f"changed {path}"]


def _audit_chain(base: Path, sidecars) -> set[str]:
    """Check each sidecar's digest, and that what one stage read is what another wrote or what lies on disk."""
    findings, written, records = set(), {}, {}
    for name in sidecars:
        record = read_record(base / name)
        if record is None or record.get("digest") != digest(record):
            if (base / name).is_file():
                findings.add(f"broken {base / name}")
            continue
        records[name] = record
        written |= {entry["path"]: entry["sha256"] for entry in record["outputs"]}
    written |= {name: sha256(base / name) for name in records}
    for name, record in records.items():
        for entry in record["inputs"]:
            if entry["path"] not in written:
                findings.update(_compare(base / entry["path"], entry["sha256"]))
            elif written[entry["path"]] != entry["sha256"]:
                findings.add(f"broken {base / name}")
        findings.update(f for entry in record["outputs"] for f in _compare(base / entry["path"], entry["sha256"]))
    return findings


def _present(results: Path) -> list[Path]:
    files = (p for p in results.rglob("*") if p.is_file())
    inside = ((p, p.relative_to(results).parts) for p in files)
    return [p for p, parts in inside if not NOT_AUDITED & set(parts) and parts != ("README.md",)]
