"""Running code that a model wrote, away from everything."""
