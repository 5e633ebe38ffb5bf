#!/bin/sh
# Runs the cluster in the foreground until SIGTERM. Settings come by environment:
#   NIGHTSHARD_STATE       its folder local-cluster becomes the cluster's
#   NIGHTSHARD_SSH_BIND    address that sshd listens on (127.0.0.1)
#   NIGHTSHARD_SSH_HOST    name under which clients reach it (127.0.0.1)
#   NIGHTSHARD_SSH_PORT    sshd's port
#   NIGHTSHARD_ACCOUNTING  not empty: slurmdbd keeps job records
set -eu

exec python -m nightshard.local.foreground \
  --root "$NIGHTSHARD_STATE/local-cluster" \
  --bind "${NIGHTSHARD_SSH_BIND:-127.0.0.1}" \
  --host "${NIGHTSHARD_SSH_HOST:-127.0.0.1}" \
  --port "${NIGHTSHARD_SSH_PORT:?set the port of sshd}" \
  ${NIGHTSHARD_ACCOUNTING:+--accounting}
