"""What can go wrong between the control plane and a cluster."""

from enum import StrEnum

from nightshard.core.errors import NightshardError, UserError


class TransportError(NightshardError):
    """The connection failed: infrastructure, says nothing of a job, may be tried again."""


class LoginFailure(StrEnum):
    """The ways in which a login can fail."""

    NAME_NOT_RESOLVED = "name not resolved"
    REFUSED = "connection refused"
    TIMED_OUT = "timed out"
    HOST_KEY_UNKNOWN = "host key unknown"
    HOST_KEY_CHANGED = "host key changed"
    HOST_KEY_NOT_TRUSTED = "host key not trusted"
    NO_HOST_KEY = "no host key given"
    PERMISSION_DENIED = "permission denied"
    UNUSABLE_KEY = "private key unusable"

    @property
    def passing(self) -> bool:
        """Whether it may mend itself: a login node that is down comes back, a key does not."""
        return self in _PASSING


_PASSING = frozenset(
    {
        LoginFailure.NAME_NOT_RESOLVED,
        LoginFailure.REFUSED,
        LoginFailure.TIMED_OUT,
        LoginFailure.PERMISSION_DENIED,  # a directory service may be down for a while
    }
)


class LoginError(UserError):
    """The cluster could not be logged in to; the message is the sentence for the user."""

    def __init__(self, failure: LoginFailure, sentence: str) -> None:
        super().__init__(sentence)
        self.failure = failure


class SubmissionRejectedError(UserError):
    """Slurm refused the array; the message has Slurm's own words."""


class CorruptOutputError(NightshardError):
    """A downloaded file does not agree with its manifest."""
