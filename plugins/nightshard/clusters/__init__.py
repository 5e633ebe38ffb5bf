"""Slurm over SSH: profiles, transport, submission, one poll a cluster. Knows no Airflow."""
