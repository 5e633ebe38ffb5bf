"""Alembic's folder: how the results database came to its present tables."""
