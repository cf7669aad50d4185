#!/usr/bin/env bash
# Make or refresh .venv with the tools for tests, then run them: ./test.sh [ARGUMENTS OF PYTEST]
# Tests on other people's data run where FOURDSTEM_TEST_DATA names their folder.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
program=test.sh
cd -- "$root"
# shellcheck source=envs/setup.sh
source envs/setup.sh

prepare product requirements.txt
prepare testing requirements-test.txt
if [ $# -eq 0 ]; then
    say "running all tests, in two processes"
    set -- -n 2 --no-loadscope-reorder
fi
exec python -m pytest "$@"
