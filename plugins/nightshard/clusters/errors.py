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
    DROPPED = "dropped before the greeting"
    SITE_MESSAGE = "answered in words"
    NOT_SSH = "not an SSH server"
    HOST_KEY_UNKNOWN = "host key unknown"
    HOST_KEY_CHANGED = "host key changed"
    HOST_KEY_NOT_TRUSTED = "host key not trusted"
    NO_HOST_KEY = "no host key given"
    PERMISSION_DENIED = "permission denied"
    TOO_MANY_KEYS = "too many keys offered"
    UNUSABLE_KEY = "private key unusable"
    KEY_ENCRYPTED = "private key needs a passphrase"
    KEY_NOT_OPENED = "wrong passphrase"
    NO_AGENT = "no agent"
    AGENT_EMPTY = "agent without keys"
    SOCKET_GONE = "held login gone"
    NO_SSH_PROGRAM = "no ssh program"
    JUMP_CANNOT_REACH = "jump host cannot reach it"
    FORWARDING_FORBIDDEN = "jump host forbids it"
    MAINTENANCE = "maintenance"

    @property
    def passing(self) -> bool:
        """Whether it may mend itself: a login node that is down comes back, a key does not.

        What a person mends by logging in once more counts too: a run in progress waits for that.
        """
        return self in _PASSING


_PASSING = frozenset(
    {
        LoginFailure.NAME_NOT_RESOLVED,
        LoginFailure.REFUSED,
        LoginFailure.TIMED_OUT,
        LoginFailure.DROPPED,
        LoginFailure.SITE_MESSAGE,
        LoginFailure.PERMISSION_DENIED,  # a directory service may be down for a while
        LoginFailure.NO_AGENT,
        LoginFailure.AGENT_EMPTY,
        LoginFailure.SOCKET_GONE,
        LoginFailure.JUMP_CANNOT_REACH,
        LoginFailure.MAINTENANCE,
    }
)


class LoginError(UserError):
    """The cluster could not be logged in to; the message is the sentence for the user."""

    def __init__(self, failure: LoginFailure, sentence: str) -> None:
        super().__init__(sentence)
        self.failure = failure


class RemoteDiskFullError(UserError):
    """A file could not be written: no space, no inodes or no quota is left.

    It does not pass by itself, so it is no :class:`TransportError`.
    """


class SubmissionRejectedError(UserError):
    """Slurm refused the array; the message has Slurm's own words."""


class QueueFullError(SubmissionRejectedError):
    """Slurm refused for now: the site's limit on jobs in the queue is reached."""


class CorruptOutputError(NightshardError):
    """A downloaded file does not agree with its manifest."""
