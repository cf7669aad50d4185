"""``python -m fourdstem audit RESULTS | check CONFIG | inspect FILE | schema [--check]``."""

import argparse
import signal
import sys
from pathlib import Path

from fourdstem.errors import FourdstemError

MEANING = """\
changed: not the bytes that were recorded; delete the file and run again, or restore it
missing: recorded, but gone; run again
extra: in the folder, but made by no recorded job
broken: a record that was edited, or that no longer fits the files it names; run again from the stage before"""


def main(arguments=None) -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m fourdstem", description="4D-STEM scans to maps, with provenance.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("audit", help="check every result against its recorded hash")
    one.add_argument("results", nargs="?", default="results")
    one = commands.add_parser("check", help="list every mistake of a configuration; run nothing")
    one.add_argument("config", nargs="?", default="config/config.yaml")
    one = commands.add_parser("inspect", help="say what a raw file holds; write the sample block to paste")
    one.add_argument("file")
    one.add_argument("--dataset", help="for HDF5 with several candidates")
    one.add_argument("--out", default=".", help="folder for the PNG (default: here)")
    one = commands.add_parser("schema", help="write the generated files: schema, tables of settings and results, envs")
    one.add_argument("--check", action="store_true", help="only compare; exit status 1 when stale")
    options = parser.parse_args(arguments)
    return _told({"audit": _audit, "check": _check, "inspect": _inspect, "schema": _schema}[options.command], options)


def _told(command, options) -> int:
    try:
        return command(options)
    except FourdstemError as error:
        print(error, file=sys.stderr)
        return 1


def _audit(options) -> int:
    from fourdstem.provenance import audit

    try:
        findings = audit(options.results)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(findings) if findings else f"sound: {Path(options.results)}")
    if findings:
        print(MEANING, file=sys.stderr)
    return 1 if findings else 0


def _check(options) -> int:
    from fourdstem import config
    from fourdstem.errors import ConfigError

    loaded = config.load(options.config)
    config.check(loaded, options.config)
    from fourdstem import headers

    if found := headers.check(loaded):
        raise ConfigError(found, options.config)
    names = [s["name"] for s in loaded["samples"]]
    for name in names:
        print(f"{name}: scan, preprocess, {', '.join(config.stages(loaded, name))}, report")
    print(f"{options.config}: no mistakes in {len(names)} sample{'s' if len(names) != 1 else ''}")
    return 0


def _inspect(options) -> int:
    """Inspect in a copy of this process: on damaged compressed counts the libraries that unpack them can crash."""
    from fourdstem.errors import InputError
    from fourdstem.watch import apart

    status, died = apart(lambda: _told(_inspect_here, options))
    if not died:
        return status
    if died == signal.strsignal(signal.SIGKILL):
        found, do = "the process was killed while it read", "Mostly memory ran out: end other programs and try again."
    else:
        found, do = f"a file that its reader dies of ({died})", "Copy it again from the microscope; it is damaged."
    raise InputError(found, where=options.file, expected="a sound file, and memory for a sample of it", do=do)


def _inspect_here(options) -> int:
    from fourdstem.figures.inspection import save_inspection
    from fourdstem.inspection import inspect

    found = inspect(options.file, options.dataset)
    print(found.text)
    for path in save_inspection(found, options.out, Path(options.file).stem):
        print(f"wrote {path}")
    return 0


def _schema(options) -> int:
    from fourdstem import environments, generated

    modules = (generated, environments)
    paths = [p for m in modules for p in (m.stale() if options.check else m.write())]
    for path in paths:
        print(f"{'stale' if options.check else 'wrote'} {path}")
    if options.check and paths:
        print("run `python -m fourdstem schema`", file=sys.stderr)
    return 1 if options.check and paths else 0


if __name__ == "__main__":
    sys.exit(main())
