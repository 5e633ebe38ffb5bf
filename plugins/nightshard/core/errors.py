"""Errors whose text is meant for a person."""


class NightshardError(Exception):
    """Base of every error that Nightshard raises on purpose."""


class UserError(NightshardError):
    """Something that the user can mend.

    The message is one sentence that says what is wrong and what to do; callers show it as it is,
    without a traceback.
    """


class IncompleteRunError(NightshardError):
    """A run cannot be merged because answers are missing, foreign or doubled."""
