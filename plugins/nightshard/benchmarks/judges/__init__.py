"""Judges, and the processes that run them under a limit."""
