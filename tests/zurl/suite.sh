#!/bin/sh
# Runs suite.py (or another script, named first) with pyzmq and an HTTP/2 server from a virtual environment.
set -e
here=$(cd "$(dirname "$0")" && pwd)
venv=${ZURL_VENV:-$here/../../target/zurl-venv}
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import hypercorn, zmq' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" --quiet install hypercorn pyzmq
fi
script=suite.py
case "$1" in *.py) script=$1; shift ;; esac
exec "$venv/bin/python" "$here/$script" "$@"
