# Sourced by the scripts beside it: a virtual environment in .venv with what an extra of pyproject.toml asks for.
#
# All of them share the one .venv. A stamp for each extra holds the checksum of pyproject.toml and the folder it was
# made in, and is written last: what was interrupted, changed or moved is set up again, what was not is left alone.

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3 python3.12 python3.13 python3.14; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer is needed, and none was found (python3 is: $(python3 --version 2>&1 || true))." \
        "On Debian 12: apt-get install python3 python3-venv"
}

make_venv() {
    local python
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python cannot make virtual environments. On Debian 12: apt-get install python3-venv"
    "$python" -m venv --clear .venv || die "$python could not make a virtual environment in $PWD/.venv."
}

usable_venv() {
    [ -x .venv/bin/python ] && .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

stamped() {
    local extra
    for extra in "$@"; do
        [ "$(cat ".venv/installed-$extra" 2>/dev/null)" != "$wanted" ] || return 0
    done
    return 1
}

install_extra() {
    .venv/bin/python -m pip install -qq --disable-pip-version-check -e ".[$1]"
}

set_up_now() {
    local started=$SECONDS
    say "Setting up .venv (the first time, or pyproject.toml has changed); this takes a minute or so."
    usable_venv || make_venv
    install_extra "$1" || { say "Trying once more." && install_extra "$1"; } ||
        die "pip could not install pricecache[$1]: its lines above say why. Nothing is lost; run this again."
    printf '%s\n' "$wanted" >".venv/installed-$1"
    say "Set up in $((SECONDS - started)) s."
}

# set_up EXTRA [WIDER]...: an environment that was prepared for a wider extra will do.
set_up() {
    local wanted
    wanted="$(cksum <pyproject.toml) $PWD"
    if stamped "$@" && [ -x .venv/bin/python ]; then
        return
    fi
    exec 9<pyproject.toml
    if command -v flock >/dev/null; then
        flock 9 # run and test may be started side by side
    fi
    stamped "$@" || set_up_now "$1"
    exec 9<&-
}

# Pages are tried in a real browser. Where we may we install it; elsewhere the tests say what to install.
set_up_chromium() {
    if command -v chromium >/dev/null || [ "$EUID" != 0 ] || ! command -v apt-get >/dev/null; then
        return
    fi
    say "Installing chromium, in which pages are tried; this takes a minute or so."
    install_chromium || { apt-get update -qq && install_chromium; } >/dev/null 2>&1 ||
        say "apt-get could not install chromium; the tests of pages go without."
}

install_chromium() {
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 chromium >/dev/null 2>&1
}
