"""Airflow makes its home folder when it is imported; a test run leaves none behind."""

import os
import tempfile

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="nightshard-airflow-"))
