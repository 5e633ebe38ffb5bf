"""Where runs are published; apart from what does it, which takes long to import."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HubAccount:
    """Where runs are published.

    Attributes:
        namespace: user or organisation.
        token: one that may write there.
        endpoint: address of the Hub, None for the public one.
        private: whether datasets that do not exist yet are made private.
    """

    namespace: str
    token: str
    endpoint: str | None = None
    private: bool = True

    def __repr__(self) -> str:
        """Show no token."""
        return f"HubAccount({self.namespace!r})"
