#!/bin/bash
# Sourced by the other scripts: finds or installs what they need on a Debian machine with Python and git.

say() { printf '%s\n' "$*" >&2; }

# as_root COMMAND...: run it as root, without ever asking for a password; fails where that cannot be.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        sudo "$@"
    else
        return 1
    fi
}

# install_packages NAME...: Debian packages, quietly; fails where they may not be installed.
install_packages() {
    command -v apt-get >/dev/null 2>&1 || return 1
    say "installing: $*"
    as_root apt-get update -qq >/dev/null || return 1
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends "$@" >/dev/null 2>&1
}

# need_uv: make sure that `uv` is on PATH, in a folder of its own below the checkout when it was not.
need_uv() {
    PATH="$PATH:$HOME/.local/bin:$PWD/.tools/bin"
    command -v uv >/dev/null 2>&1 && return
    say "installing: uv (into .tools)"
    if ! python3 -m venv .tools >/dev/null 2>&1; then
        rm -rf .tools
        install_packages python3-venv && python3 -m venv .tools >/dev/null
    fi
    if ! .tools/bin/python -m pip install --quiet --disable-pip-version-check uv; then
        say "error: uv could not be installed"
        say "hint: install it as its documentation says, then run this again"
        exit 1
    fi
}

# name_uv: say where uv is when it was installed here, since every command of the README needs it.
name_uv() {
    if [ "$(command -v uv)" = "$PWD/.tools/bin/uv" ]; then
        say "uv is in .tools; for the commands of the README: export PATH=\"\$PATH:$PWD/.tools/bin\""
    fi
}

# need_slurm: SLURM's daemons; returns 1, having said how, where they cannot be installed.
need_slurm() {
    PATH="$PATH:/usr/sbin:/sbin"
    if command -v slurmctld >/dev/null 2>&1 && command -v munged >/dev/null 2>&1; then
        return
    fi
    install_packages slurm-wlm munge && return
    say "SLURM is not installed, and cannot be installed from here"
    say "hint: sudo apt-get install slurm-wlm munge"
    return 1
}

# need_shellcheck: likewise.
need_shellcheck() {
    command -v shellcheck >/dev/null 2>&1 || install_packages shellcheck
}

# need_chromium: a browser, likewise; under one name or another.
need_chromium() {
    command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || install_packages chromium
}

# need_environment: the locked Python environment.
need_environment() {
    # Compiled, since commands start in a fraction of a second only then.
    uv sync --locked --quiet --compile-bytecode
}
