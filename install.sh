#!/usr/bin/env bash
# Make the virtual environment .venv from the locks, every package by its hash: `make install` runs it.
# Reads requirements.lock, requirements.cuda.lock and setup.cfg; writes .venv. Takes uv where it is on the PATH, else pip.
#
#   ./install.sh                          PYTHON=/path/to/python names the interpreter: 3.11, 3.12 or 3.13
set -euo pipefail
cd "$(dirname "$0")"

venv=.venv
fail() {
    echo "error: $*" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11, 3.12 or 3.13 ${PYTHON:+at $PYTHON}: \`uv python install 3.11\`, or the system's own" \
        "(\`apt install python3.11-venv\`, \`brew install python@3.11\`), or \`make install PYTHON=/path/to/python3.11\`"
}

has_uv() { command -v uv >/dev/null; }

make_venv() {
    local python
    python=$(find_python)
    # With pip inside: it may know an index that uv does not.
    if has_uv; then
        uv venv --quiet --seed --allow-existing --python "$python" "$venv"
    else
        "$python" -m venv "$venv" || fail "$python has no venv of its own: \`apt install python3-venv\`, or install uv"
    fi
}

# with_uv ARGUMENT... | with_pip ARGUMENT...: install exactly what a lock lists.
with_uv() { uv pip install --quiet --python "$venv/bin/python" --no-deps "$@"; }
with_pip() { PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$@"; }
install() { if has_uv; then with_uv "$@"; else with_pip "$@"; fi; }

# of_torch YES|NO: the lock's lines of torch, or all others.
of_torch() { awk -v wanted="$1" '/^[a-z0-9]/ { torch = /^torch==/ ? "YES" : "NO" } torch == wanted' requirements.lock; }

# The lock has the hash of the CPU build for this machine. uv knows PyTorch's own index; pip knows what its user set up.
install_cpu_torch() {
    of_torch YES >"$scratch/torch.lock"
    if has_uv && with_uv --torch-backend cpu --require-hashes --requirement "$scratch/torch.lock" 2>"$scratch/uv"; then
        return
    fi
    if with_pip --require-hashes --requirement "$scratch/torch.lock" 2>"$scratch/pip"; then
        return
    fi
    if grep -qi 'hash mismatch\|do not match the hashes' "$scratch"/{uv,pip} 2>/dev/null; then
        cat "$scratch"/{uv,pip} >&2 2>/dev/null || true
        fail "torch is not what requirements.lock expects: do not use this index"
    fi
    tail -qn 1 "$scratch"/{uv,pip} >&2 2>/dev/null || true
    return 1
}

install_torch() {
    case "$("$venv/bin/python" -c 'import platform, sys; print(sys.platform, platform.machine(), sys.version_info[1])')" in
        darwin*)
            of_torch YES >"$scratch/torch.lock"
            install --require-hashes --requirement "$scratch/torch.lock"
            return
            ;;
        "linux x86_64 11") if install_cpu_torch; then return; fi ;;
    esac
    echo "torch: no index here has a CPU build with a hash of requirements.lock, so the CUDA build comes with its" \
        "libraries: 2.7 GB to download, 4.6 GB on disk (Linux on x86-64). Ctrl-C ends it. On Linux x86-64 with Python" \
        "3.11, uv or PIP_EXTRA_INDEX_URL with PyTorch's CPU index takes 0.2 GB." >&2
    install --require-hashes --requirement requirements.cuda.lock
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
[ -x "$venv/bin/python" ] || make_venv
install_torch
of_torch NO >"$scratch/rest.lock"
install --require-hashes --requirement "$scratch/rest.lock"
install --no-build-isolation --editable .
