# Small helpers that quickstart, test and the scripts share. Source it; it runs nothing.
# shellcheck shell=bash

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# run_as_root CMD…: directly when root, else through sudo with the environment kept.
run_as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -E "$@"
    else
        die "this step needs root: run as root, or install sudo ($*)"
    fi
}

_apt_updated=
# apt_install PACKAGE…: install Debian packages, or say exactly what to install.
apt_install() {
    if ! command -v apt-get >/dev/null; then
        die "please install: $* (there is no apt-get here to do it with)"
    fi
    say "installing $*"
    if [ -z "$_apt_updated" ]; then
        run_as_root apt-get update -qq >&2 || true
        _apt_updated=1
    fi
    DEBIAN_FRONTEND=noninteractive run_as_root apt-get install -y -qq --no-install-recommends "$@" >&2 ||
        die "could not install $*; install it and run this again"
}

# need COMMAND PACKAGE: make sure a command is there.
need() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || apt_install "$2"
}

# need_rust: cargo of at least the version the workspace asks for.
need_rust() {
    if ! command -v cargo >/dev/null; then
        [ -x "$HOME/.cargo/bin/cargo" ] && PATH=$HOME/.cargo/bin:$PATH && return
        die "cargo is missing: install a Rust toolchain (1.95 or newer) with rustup and run this again"
    fi
}
