"""What is asked and how an answer is judged: one module a benchmark family, one registry."""
