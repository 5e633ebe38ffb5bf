#!/bin/sh
# Build an Apptainer image of the worker from this folder, without a network:
#   sh image.sh BASE FOLDER
# BASE is an image with the bundle's Python, pulled where there is internet.
set -eu

fail() {
  echo "image.sh: $1" >&2
  exit 2
}

absolute() {
  case $1 in
    /*) echo "$1" ;;
    *) echo "$(pwd)/$1" ;;
  esac
}

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/bundle.env"
[ $# -eq 2 ] || fail "Name an image with Python and a folder: sh image.sh BASE FOLDER"
base=$(absolute "$1")
target=$(absolute "$2")
apptainer=$(command -v apptainer || command -v singularity) ||
  fail "There is neither apptainer nor singularity here; load a module that has one."
[ -e "$base" ] ||
  fail "There is no image $base; fetch it where there is internet: apptainer pull $(basename "$base") docker://python:$BUNDLE_PYTHON-bookworm"
mkdir -p "$target/bin" 2>/dev/null ||
  fail "$target cannot be made; name a folder that you may write to."

sed "s|^From: .*|From: $base|" "$here/worker.def" >"$target/worker.def"
(cd "$here" && "$apptainer" build --force "$target/worker.sif" "$target/worker.def") ||
  fail "The image could not be built, see above."
cat >"$target/bin/python" <<END
#!/bin/sh
# The Python in the worker's image. APPTAINER_BIND names the folders that it shall see.
export PYTHONNOUSERSITE=1
exec "$apptainer" exec --nv "$target/worker.sif" /opt/worker-env/bin/python "\$@"
END
chmod 755 "$target/bin/python"
"$target/bin/python" -m shard_worker selfcheck --no-model --engine "$BUNDLE_ENGINE" \
  --work-dir "$target" || exit $?
echo "ready; in the cluster's profile, worker.python is $target/bin/python"
