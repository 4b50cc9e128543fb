#!/bin/sh
# Install the real clients of other servers that the tests use, each into an environment of its own: .clients/NAME
# from tests/clients/NAME.txt, and without its dependencies what stands in NAME.no-deps.txt.
set -eu
root=.clients
python=$1
for file in tests/clients/*.txt; do
    name=$(basename "$file" .txt)
    case $name in *.no-deps) continue ;; esac
    mark=$root/$name/.installed
    bare=tests/clients/$name.no-deps.txt
    if [ -e "$mark" ] && ! [ "$file" -nt "$mark" ]; then continue; fi
    echo "installing the clients of $name for the tests"
    mkdir -p "$root"
    "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 13))' || echo "note: some clients may not install on Python 3.13"
    if command -v uv >/dev/null 2>&1; then
        uv venv --quiet --allow-existing --python "$python" "$root/$name"
        install="uv pip install --quiet --python $root/$name/bin/python"
    else
        "$python" -m venv "$root/$name"
        "$root/$name/bin/python" -m pip install --quiet --upgrade pip
        install="$root/$name/bin/python -m pip install --quiet"
    fi
    $install -r "$file"
    if [ -e "$bare" ]; then $install --no-deps -r "$bare"; fi
    touch "$mark"
done
