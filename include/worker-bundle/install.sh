#!/bin/sh
# Make the worker's environment from this folder, without a network:
#   sh install.sh FOLDER [ENGINE]
# PYTHON names another interpreter than the one on the PATH.
set -eu

fail() {
  echo "install.sh: $1" >&2
  exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/bundle.env"
[ $# -ge 1 ] || fail "Name the folder for the worker's environment: sh install.sh FOLDER"
case $1 in
  /*) target=$1 ;;
  *) target=$(pwd)/$1 ;;
esac
engine=${2:-$BUNDLE_ENGINE}
python=${PYTHON:-python$BUNDLE_PYTHON}
unset PYTHONPATH PYTHONHOME

command -v "$python" >/dev/null ||
  fail "There is no $python here; load a module that has it, or set PYTHON to its path."
version=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$version" = "$BUNDLE_PYTHON" ] ||
  fail "$python is Python $version and this bundle is for $BUNDLE_PYTHON; set PYTHON to another one, or build a bundle with --python $version."
machine=$(uname -m)
[ "$machine" = "$BUNDLE_MACHINE" ] ||
  fail "This node is $machine and this bundle is for $BUNDLE_MACHINE; build one with --machine $machine."
libc=$("$python" -I -c 'import os; print(os.confstr("CS_GNU_LIBC_VERSION"))' 2>/dev/null) || libc=none
minor=${libc#glibc 2.}
case $minor in
  "" | *[!0-9]*) fail "The C library here is $libc and the wheels need glibc $BUNDLE_GLIBC; build a bundle with --apptainer." ;;
esac
[ "$minor" -ge "${BUNDLE_GLIBC#2.}" ] ||
  fail "The C library here is $libc and the wheels need $BUNDLE_GLIBC; use newer nodes, or build a bundle with --apptainer."

if [ -e "$target" ] && [ ! -f "$target/pyvenv.cfg" ] && [ -n "$(ls -A "$target")" ]; then
  fail "$target is there and is no Python environment; name another folder, or remove it."
fi
mkdir -p "$target" 2>/dev/null || fail "$target cannot be made; name a folder that you may write to."
free=$(df -Pk "$target" | awk 'NR == 2 { print $4 }')
[ "$free" -ge "$BUNDLE_INSTALLED_KIB" ] ||
  fail "$target has $((free / 1024)) MiB free and the environment takes $((BUNDLE_INSTALLED_KIB / 1024)) MiB; free some space, or name another folder."

echo "checking the archive"
(cd "$here" && sha256sum --quiet --check SHA256SUMS) ||
  fail "The archive is damaged, see above; copy it again and unpack it anew."
echo "installing $BUNDLE_PACKAGES packages, $((BUNDLE_INSTALLED_KIB / 1024)) MiB, into $target"
"$python" -I -m venv --clear "$target" ||
  fail "$python cannot make environments; load a Python that has venv and ensurepip."
PIP_CONFIG_FILE=/dev/null "$target/bin/python" -I -m pip --isolated --disable-pip-version-check \
  install --quiet --no-index --no-deps --no-cache-dir --find-links "$here/wheels" \
  --require-hashes --requirement "$here/requirements.lock" ||
  fail "pip could not install the wheels, see above."
"$target/bin/shard-worker" --version
"$target/bin/shard-worker" selfcheck --no-model --engine "$engine" --work-dir "$target" || exit $?
echo "ready; in the cluster's profile, worker.python is $target/bin/python"
