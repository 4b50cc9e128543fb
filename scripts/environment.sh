#!/bin/sh
# Make the virtual environment $1 with the first Python of 3.11 or newer that can.
set -eu
for python in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$python" ] && command -v "$python" >/dev/null 2>&1 || continue
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    echo "making $1 with $("$python" --version)"
    if command -v uv >/dev/null 2>&1; then
        exec uv venv --quiet --python "$(command -v "$python")" "$1"
    fi
    "$python" -c 'import ensurepip' 2>/dev/null || continue
    exec "$python" -m venv "$1"
done
echo "error: no Python of 3.11 or newer with the venv module was found" >&2
echo "hint: apt-get install python3 python3-venv, or name one: make PYTHON=/path/to/python3.11" >&2
exit 1
