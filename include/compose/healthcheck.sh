#!/bin/sh
# Exit status 0 if the named service of this container works.
set -eu

case "${1:?name a service}" in
  slurm)
    exec python -m nightshard.local.foreground --root "$NIGHTSHARD_STATE/local-cluster" --check
    ;;
  api-server)
    exec python -c 'import urllib.request as r; r.urlopen("http://localhost:8080/api/v2/monitor/health", timeout=5)'
    ;;
  scheduler) exec airflow jobs check --job-type SchedulerJob --local ;;
  triggerer) exec airflow jobs check --job-type TriggererJob --local ;;
  dag-processor) exec airflow jobs check --job-type DagProcessorJob --local ;;
  celery-worker)
    exec celery --app airflow.providers.celery.executors.celery_executor.app \
      inspect ping --timeout 20 --destination "celery@$(hostname)"
    ;;
  *)
    echo "no such service: $1" >&2
    exit 2
    ;;
esac
