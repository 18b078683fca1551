#!/usr/bin/env bash
# Makes generated/printos_device_api from the specification in spec/. `./codegen.sh --help` says the rest.
set -euo pipefail

# Follow links, so that a link to this file from elsewhere still finds the repository (macOS has no readlink -f).
script="${BASH_SOURCE[0]}"
while [ -L "$script" ]; do
  link="$(readlink "$script")"
  case "$link" in
    /*) script="$link" ;;
    *) script="$(dirname "$script")/$link" ;;
  esac
done
root="$(CDPATH='' cd -- "$(dirname -- "$script")" && pwd -P)"

fail() {
  printf 'codegen: %s\n' "$1" >&2
  exit 2
}

# -P: a stray module in the folder this was called from must not shadow a tool. -B: --check writes no cache either.
has_tools() { PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "$1" -P -B -m spec.codegen_tools >/dev/null 2>&1; }

python="${PYTHON:-}"
if [ -z "$python" ]; then
  for candidate in "$root"/.venv*/bin/python; do
    if [ -x "$candidate" ] && has_tools "$candidate"; then
      python="$candidate"
      break
    fi
  done
fi
python="${python:-python3}"

command -v -- "$python" >/dev/null 2>&1 || fail "no Python at '$python'; Python 3.11 or later is needed"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  fail "'$python' is not Python 3.11 or later; name one in PYTHON"

PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -P -B -m spec.codegen "$@"
