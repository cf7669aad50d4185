#!/usr/bin/env bash
# Make or refresh .venv, then run Snakemake in this folder: ./run.sh [ARGUMENTS OF SNAKEMAKE]
# Without arguments: the demo, to its reports. FOURDSTEM_PYTHON names the Python to use.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
program=run.sh
cd -- "$root"
# shellcheck source=envs/setup.sh
source envs/setup.sh

# Tell whether Snakemake, or a job that a killed one left behind, runs in this folder.
snakemake_runs_here() {
    local process
    [ -d /proc/self ] || { pgrep -f snakemake >/dev/null; return; }
    for process in /proc/[0-9]*; do
        if [ "$process/cwd" -ef "$root" ] &&
            tr '\0' '\n' <"$process/cmdline" 2>/dev/null | grep -Eq '(^|/)snakemake$|/\.snakemake/scripts/'; then
            return 0
        fi
    done
    return 1
}

clear_stale_lock() {
    [ -n "$(ls -A .snakemake/locks 2>/dev/null || true)" ] || return 0
    if snakemake_runs_here; then
        die "Snakemake, or a job that it left behind, is running in this folder. Wait for it, or end it, and run again."
    fi
    say "clearing the lock of a Snakemake that was killed"
    snakemake --unlock >/dev/null 2>&1 || rm -rf .snakemake/locks
}

only_looks() {
    local argument
    for argument; do
        case $argument in -n | --dry-run | --dryrun | -h | --help | -v | --version | --lint | --dag | --rulegraph | --summary) return 0 ;; esac
    done
    return 1
}

# Snakemake starts scripts by the path of its Python, unquoted: with a space in it, every job would fail. A link cures it.
python_without_spaces() {
    python=$venv/bin/python
    case $root in
        *[!A-Za-z0-9/._+-]*)
            link=$(mktemp -d /tmp/fourdstem.XXXXXX)
            ln -s "$venv" "$link/venv"
            python=$link/venv/bin/python
            ;;
    esac
}

# In a process group of its own Snakemake gets each signal once, and this script lives on to say how it ended.
run_snakemake() {
    local status=0 child
    set -m
    "$python" "$venv/bin/snakemake" "$@" &
    child=$!
    set +m
    trap 'kill -INT -- "-$child" 2>/dev/null || true' INT
    trap 'kill -TERM "$child" 2>/dev/null || true' TERM HUP
    # A signal ends `wait` early: wait until the child is gone.
    while true; do
        status=0
        wait "$child" || status=$?
        kill -0 "$child" 2>/dev/null || break
    done
    trap - INT TERM HUP
    return "$status"
}

# shellcheck disable=SC2329 # the trap calls it
finish() {
    [ -z "${link:-}" ] || rm -rf "$link"
    [ -z "${locked:-}" ] || release_lock run
}

prepare product requirements.txt
trap finish EXIT
python_without_spaces
if ! only_looks "$@"; then
    take_lock run || die "another copy is running here: ${holder:-unknown}, or jobs that it left behind." \
        "Wait for it, or end it, and run again."
    locked=yes
    clear_stale_lock
fi
[ $# -gt 0 ] || say "running the demo; reports will be under results/"
status=0
run_snakemake "$@" || status=$?
if [ "$status" -ne 0 ]; then
    say "Snakemake ended with status $status"
elif [ $# -eq 0 ]; then
    say "done. Open in a browser:"
    for report in results/summary.html results/*/report.html; do
        [ ! -e "$report" ] || say "  $root/$report"
    done
fi
exit "$status"
