#!/bin/sh
# Writes .env (or the file named as the argument) from env.example, with a fresh secret on every
# line that has none. An existing file is kept: the database knows its password.
set -eu

target="${1:-.env}"
if [ -e "$target" ]; then
  echo "$target exists and is kept; remove it to make new secrets (and the database volume with it)"
  exit 0
fi

hex() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
# Fernet wants 32 bytes in URL-safe base64.
fernet() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }

umask 077
while IFS= read -r line; do
  case "$line" in
    AIRFLOW_FERNET_KEY=) printf '%s%s\n' "$line" "$(fernet)" ;;
    *_PASSWORD= | *_SECRET= | *_KEY=) printf '%s%s\n' "$line" "$(hex)" ;;
    *) printf '%s\n' "$line" ;;
  esac
done < "$(dirname "$0")/env.example" > "$target.new"
mv "$target.new" "$target"
echo "wrote $target"
