#!/usr/bin/env bash
# Makes a machine ready for hpcmsm. Called by the Makefile: setup_machine.sh run | dev
#
# With apt and rights (root or sudo) it installs the system packages that are missing. Otherwise it
# uses what is there (modules: mpicc, petsc4py, parallel h5py) and says what is missing. Then it
# makes a virtual environment that sees the system's packages, and installs hpcmsm into it.
#
# PYTHON  the python to use; with one other than the system's, apt is left alone
# VENV    the virtual environment                              (default .venv)
# TORCH   what pip is asked for where torch is not importable  (default torch==2.13.0)
set -euo pipefail
cd "$(dirname "$0")/.."

SYSTEM_PYTHON=/usr/bin/python3
VENV=${VENV:-.venv}
TORCH=${TORCH:-torch==2.13.0}
# These belong together: they are built against one MPI.
PACKAGES="build-essential openmpi-bin libopenmpi-dev python3-mpi4py python3-h5py-mpi
          python3-petsc4py-real python3-venv python3-dev"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
export H5PY_ALWAYS_USE_MPI=1

say() { echo "==> $*"; }
fail() { echo "setup: $*" >&2; exit 1; }
imports() { "$1" -c "import $2" >/dev/null 2>&1; }

# Python: the one asked for, else the system's where there is apt (its packages fit no other).
if [ -z "${PYTHON:-}" ]; then
    if command -v apt-get >/dev/null; then PYTHON=$SYSTEM_PYTHON; else PYTHON=python3; fi
fi

missing_packages() {
    for package in $PACKAGES; do
        [[ $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) == *"ok installed" ]] || echo "$package"
    done
}

install_packages() {
    local missing root="" how
    missing=$(missing_packages | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    how="apt-get update && apt-get install --no-install-recommends $missing"
    if [ "$(id -u)" != 0 ]; then
        # sudo may ask for a password only where someone can type it.
        if [ -t 0 ] && command -v sudo >/dev/null; then root=sudo
        elif sudo -n true 2>/dev/null; then root="sudo -n"
        else
            say "no rights to install system packages; missing: $missing"
            MISSING_HOW="ask an administrator for: $how"
            return 0
        fi
    fi
    say "installing system packages: $missing"
    $root apt-get -qq update
    $root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing \
        >"${TMPDIR:-/tmp}/hpcmsm-apt.$$" 2>&1 || { cat "${TMPDIR:-/tmp}/hpcmsm-apt.$$" >&2; fail "apt-get failed; $how"; }
    rm -f "${TMPDIR:-/tmp}/hpcmsm-apt.$$"
}

make_venv() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "hpcmsm needs python 3.11 or newer, got '$("$PYTHON" --version 2>&1)' from $PYTHON;" \
            "name another with: make setup PYTHON=/path/to/python3"
    if ! imports "$VENV/bin/python" pip; then
        say "making $VENV from $PYTHON"
        "$PYTHON" -m venv --clear --system-site-packages "$VENV" ||
            fail "$PYTHON cannot make a virtual environment; install its venv module (Debian: python3-venv)"
    fi
}

# Debian's petsc4py lies below PETSc's own folder, as does one built with PETSc (--with-petsc4py).
link_petsc4py() {
    local folder candidates=""
    imports "$VENV/bin/python" petsc4py && return
    if [ "$PYTHON" = "$SYSTEM_PYTHON" ] && command -v dpkg-query >/dev/null; then
        candidates=$(dpkg-query -W -f='${Package}\n' 'python3-petsc4py-real*' 2>/dev/null | xargs -r dpkg -L 2>/dev/null |
            sed -n 's:/petsc4py/__init__\.py$::p' | sort -V) || true
    fi
    for folder in $candidates "${PETSC_DIR:-}/${PETSC_ARCH:-}/lib" "${PETSC_DIR:-}/lib"; do
        if [ -f "$folder/petsc4py/__init__.py" ]; then
            say "petsc4py found in $folder"
            echo "$folder" >"$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/petsc4py.pth"
        fi
    done
}

# Everything that is missing is named at once, each with its remedy.
check_machine() {
    local lacks=""
    need() { lacks+="  - $1"$'\n'"      $2"$'\n'; }
    command -v "${CC:-cc}" >/dev/null || need "a C compiler (cc)" "Debian: build-essential; cluster: module load gcc, or set CC"
    command -v mpirun >/dev/null || need "mpirun" "Debian: openmpi-bin; cluster: module load openmpi (or mpich)"
    imports "$VENV/bin/python" mpi4py || command -v mpicc >/dev/null ||
        need "mpi4py, or mpicc to build it" "Debian: python3-mpi4py; cluster: the MPI module, then pip builds mpi4py"
    imports "$VENV/bin/python" petsc4py ||
        need "petsc4py for $PYTHON" "Debian: python3-petsc4py-real; cluster: module load petsc, and set PETSC_DIR or PYTHON"
    "$VENV/bin/python" -c 'import h5py, sys; sys.exit(not h5py.get_config().mpi)' >/dev/null 2>&1 ||
        need "h5py with MPI for $PYTHON" "Debian: python3-h5py-mpi; cluster: module load hdf5 (parallel), then
      CC=mpicc HDF5_MPI=ON CFLAGS=-O1 $VENV/bin/pip install --no-binary=h5py h5py"
    [ -z "$lacks" ] && return
    printf 'setup: this machine lacks\n%s' "$lacks" >&2
    fail "${MISSING_HOW:-install or load these, then call make again}"
}

pip_install() { "$VENV/bin/python" -m pip install -q --constraint "$VENV/constraints.txt" "$@"; }

# Packages built against the system's numpy work with its major version only.
write_constraints() {
    "$VENV/bin/python" -I -c 'import numpy; print("numpy==" + numpy.__version__.split(".")[0] + ".*")' \
        >"$VENV/constraints.txt" 2>/dev/null || : >"$VENV/constraints.txt"
}

install_torch() {
    imports "$VENV/bin/python" torch && return
    say "installing $TORCH"
    # The default build brings gigabytes of CUDA. Without a GPU take the small one, unless pip has
    # been told where to look.
    if ! command -v nvidia-smi >/dev/null && [[ ! $("$VENV/bin/python" -m pip config list) =~ index-url|find-links ]]; then
        pip_install --retries 1 --index-url https://download.pytorch.org/whl/cpu "$TORCH" 2>/dev/null && return
    fi
    pip_install "$TORCH"
}

case "${1:-run}" in
run)
    if [ "$PYTHON" = "$SYSTEM_PYTHON" ] && command -v apt-get >/dev/null; then install_packages; fi
    make_venv
    link_petsc4py
    check_machine
    write_constraints
    install_torch
    say "installing hpcmsm and what it needs into $VENV"
    pip_install -e .
    say "ready"
    ;;
dev)
    say "installing what the tests need into $VENV"
    pip_install -e '.[dev]'
    ;;
*) fail "usage: setup_machine.sh run | dev" ;;
esac
