"""The pages that Airflow's API server shows: a shard's log on the cluster, and its Slurm job."""
