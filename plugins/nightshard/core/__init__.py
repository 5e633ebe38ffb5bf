"""Plain values and pure functions. Nothing here reads a file, opens a socket or knows Airflow."""
