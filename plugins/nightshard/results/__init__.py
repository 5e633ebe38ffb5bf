"""Answers, scores and where they are kept: merge, judging, the artefact store, the database."""
