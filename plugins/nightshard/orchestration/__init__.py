"""Airflow's side: operators, triggers, params. The only room that imports ``airflow``.

Everything a DAG file imports is light; what needs pyarrow, datasets or a scorer imports it inside
the task, so that parsing a DAG file stays well under a second.
"""
