# Sourced by run.sh and test.sh: makes .venv from exact pins, once, by one process at a time.
# Needs `root` (the repository, and the working directory) and `program` (who speaks); leaves .venv/bin on PATH.
# shellcheck shell=bash disable=SC2154

say() { printf '%s: %s\n' "$program" "$*" >&2; }

die() {
    say "$@"
    exit 1
}

# ---- locks ---------------------------------------------------------------------------------------------------

# take_lock NAME: hold .cache/NAME.lock until this process ends, or return 1 with `holder` saying who has it.
take_lock() {
    local file="$root/.cache/$1.lock"
    mkdir -p "$root/.cache"
    if command -v flock >/dev/null; then
        exec {lock_descriptor}>>"$file"
        if ! flock --nonblock "$lock_descriptor"; then
            holder=$(head -n 1 "$file" 2>/dev/null || true)
            exec {lock_descriptor}>&-
            return 1
        fi
        describe_self >"$file"
    else
        take_folder_lock "$file.d"
    fi
}

# Without flock (macOS): a folder can be made by one process only; that of a dead process is taken over.
take_folder_lock() {
    local folder=$1 owner
    until mkdir "$folder" 2>/dev/null; do
        owner=$(cat "$folder/pid" 2>/dev/null || true)
        holder=$(cat "$folder/holder" 2>/dev/null || true)
        # A folder without a pid is being made at this moment, or was left by a kill in that moment.
        [ -n "$owner" ] || { sleep 1 && owner=$(cat "$folder/pid" 2>/dev/null || true); }
        if [ -n "$owner" ] && kill -0 "$owner" 2>/dev/null; then return 1; fi
        rm -rf "$folder"
    done
    echo $$ >"$folder/pid"
    describe_self >"$folder/holder"
}

describe_self() { printf 'process %s (%s), started %s\n' "$$" "$program" "$(date '+%Y-%m-%d %H:%M:%S')"; }

# release_lock NAME: before the process ends.
release_lock() {
    if command -v flock >/dev/null; then exec {lock_descriptor}>&-; else rm -rf "$root/.cache/$1.lock.d"; fi
}

# ---- Python --------------------------------------------------------------------------------------------------

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

# find_python: set `python` to one that can make a virtual environment.
find_python() {
    local candidate without_venv=
    for candidate in ${FOURDSTEM_PYTHON:+"$FOURDSTEM_PYTHON"} python3.13 python3.12 python3.11 python3 python; do
        if suits "$candidate"; then
            if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
                python=$candidate
                return
            fi
            without_venv=${without_venv:-$candidate}
        elif [ "$candidate" = "${FOURDSTEM_PYTHON:-}" ]; then
            die "FOURDSTEM_PYTHON=$candidate is not a working Python 3.11, 3.12 or 3.13. Correct or unset it."
        fi
        # Whoever names a Python wants that one or an explanation.
        [ -z "${FOURDSTEM_PYTHON:-}" ] || break
    done
    [ -z "$without_venv" ] || die "$without_venv lacks the module venv or ensurepip." \
        "On Debian and Ubuntu: apt install $(basename "$without_venv")-venv"
    die "no Python 3.11, 3.12 or 3.13 found. Install one, or name it: FOURDSTEM_PYTHON=/path/to/python $program"
}

# fingerprint FILE...: what an installation depends on. The place counts: an environment cannot be moved.
fingerprint() {
    "$venv/bin/python" - "$root" "$@" <<'PYTHON'
import hashlib, pathlib, sys
parts = [sys.version, sys.argv[1], *(pathlib.Path(p).read_text(encoding="utf-8") for p in sys.argv[2:])]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
PYTHON
}

# ---- the environment -------------------------------------------------------------------------------------------

# prepare NAME FILE...: let .venv hold the pins of FILE...; NAME keeps product and tests apart.
prepare() {
    local name=$1 stamp waiting=
    shift
    venv=$root/.venv
    stamp=$venv/$name.stamp
    # What the caller's shell was set up for must not leak into the environment; `pip --user` fails in one.
    unset PYTHONHOME PYTHONPATH
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0 VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
    until take_lock setup; do
        [ -n "$waiting" ] || say "waiting for ${holder:-another copy}, which is setting up .venv"
        waiting=yes
        sleep 1
    done
    if ! is_current "$stamp" "$@"; then
        make_venv
        install "$stamp" "$@"
    fi
    release_lock setup
}

is_current() {
    local stamp=$1
    shift
    [ -f "$stamp" ] && suits "$venv/bin/python" && wanted_python &&
        [ "$(cat "$stamp")" = "$(fingerprint "$@" "$root/pyproject.toml")" ]
}

# wanted_python: .venv has the version of FOURDSTEM_PYTHON, where that is set.
wanted_python() {
    local ask='import sys; print(sys.version)'
    [ -z "${FOURDSTEM_PYTHON:-}" ] || [ "$("$FOURDSTEM_PYTHON" -c "$ask")" = "$("$venv/bin/python" -c "$ask")" ]
}

make_venv() {
    # `made-by-setup` is there from the first moment, `complete` from the end of an installation to the start of the
    # next: only what this script made is ever deleted, and an installation that was cut short is made anew.
    if [ -e "$venv/made-by-setup" ]; then
        if ! [ -e "$venv/complete" ]; then
            say "the last installation was cut short: making .venv anew"
            rm -rf "$venv"
        elif ! suits "$venv/bin/python" || ! wanted_python || [ "$(cat "$venv/made-by-setup")" != "$root" ]; then
            say "Python or the folder has changed: making .venv anew"
            rm -rf "$venv"
        fi
    elif [ -e "$venv" ]; then
        if ! suits "$venv/bin/python" || ! wanted_python; then
            die ".venv was not made here and does not have the Python that is wanted. Remove it, and run again."
        fi
    fi
    [ -e "$venv" ] || start_venv
}

start_venv() {
    local output
    find_python
    say "making .venv with $("$python" --version)"
    mkdir -p "$venv" && echo "$root" >"$venv/made-by-setup"
    output=$("$python" -m venv "$venv" 2>&1) || die "$python -m venv failed: $output"
}

install() {
    local stamp=$1 log=$venv/setup.log file options=()
    shift
    for file; do options+=(-r "$file"); done
    # The tools for tests must not change the product's pins.
    [ "$1" = requirements.txt ] || options+=(-c requirements.txt)
    rm -f "$venv/complete" "$stamp"
    say "installing $(cat "$@" | grep -c '==') pinned packages into .venv: a minute or more, once (log: .venv/setup.log)"
    {
        # The last line compiles what orix compiles when it is first imported, where the jobs will look for it.
        "$venv/bin/python" -m pip install "${options[@]}" &&
            "$venv/bin/python" -m pip install --no-deps -e "$root" &&
            NUMBA_CACHE_DIR="$root/.snakemake/numba" "$venv/bin/python" -c 'import fourdstem.crystal'
    } >"$log" 2>&1 || {
        tail -n 15 "$log" >&2
        die "the installation failed; its last lines stand above, all of them in .venv/setup.log. Run again when cured."
    }
    fingerprint "$@" "$root/pyproject.toml" >"$stamp"
    touch "$venv/complete"
    say ".venv is ready"
}
