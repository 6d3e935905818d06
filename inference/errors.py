"""The errors of speaking with consent; their base, and those of models and input, are `model`'s."""

from sayso.model.errors import SaysoError


class MarkError(SaysoError):
    """A watermark or a C2PA manifest cannot be made, or is not found on the result."""


class StoreError(SaysoError):
    """The store (keys, registry, ledger, recordings) is unreadable or was changed."""


class GoneError(SaysoError):
    """Whoever asked does not wait for the answer any more."""


class RefusedError(SaysoError):
    """The consent gate said no.

    Args:
        code: A stable reason code for machines, such as ``receipt-expired``.
        message: What was met and what to do, for people.
    """

    def __init__(self, code: str, message: str):
        super().__init__(f"{message} [{code}]")
        self.code = code
