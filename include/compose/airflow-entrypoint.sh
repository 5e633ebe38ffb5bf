#!/bin/sh
# Starts one of Airflow's services: init, api-server, scheduler, triggerer, dag-processor or
# celery-worker.
# Anything else is run as a command in the same environment.
set -eu

if [ -f "$NIGHTSHARD_STATE/local-cluster/cluster.json" ]; then
  AIRFLOW_CONN_NIGHTSHARD_LOCAL="$(python -m nightshard.local.info "$NIGHTSHARD_STATE/local-cluster")"
  export AIRFLOW_CONN_NIGHTSHARD_LOCAL
fi

case "${1:?name a service: init, api-server, scheduler, triggerer, dag-processor or celery-worker}" in
  init)
    airflow db migrate
    exec nightshard db upgrade
    ;;
  api-server)
    : "${AIRFLOW_ADMIN_PASSWORD:?set the password of the user admin}"
    AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE="$AIRFLOW_HOME/passwords.json"
    export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE
    # By environment, not by argument: a process list shows arguments to everyone.
    (umask 077 && python -c 'import json, os; print(json.dumps({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}))' \
      > "$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE")
    unset AIRFLOW_ADMIN_PASSWORD
    exec airflow api-server
    ;;
  celery-worker)
    exec airflow celery worker --concurrency "${CELERY_CONCURRENCY:-4}"
    ;;
  scheduler | triggerer | dag-processor)
    exec airflow "$1"
    ;;
  *)
    exec "$@"
    ;;
esac
