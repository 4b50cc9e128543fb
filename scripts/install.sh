#!/bin/sh
# Install this project, editable, into the virtual environment $1; the other words are what to install.
set -eu
venv=$1
shift
echo "installing $* (the first time this takes a minute or two)"
if command -v uv >/dev/null 2>&1; then
    exec uv pip install --quiet --python "$venv/bin/python" -e "$@"
fi
# Dependency groups need pip 25.1.
"$venv/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
exec "$venv/bin/python" -m pip install --quiet -e "$@"
