"""The errors Sayso raises on purpose: each message names the value met and the remedy."""


class SaysoError(Exception):
    """Base of every refusal and failure that a user can act on; the CLI prints it in one line."""


class InputError(SaysoError):
    """Text, audio or a setting that cannot be used."""


class CheckpointError(SaysoError):
    """Weights or their config are missing, truncated or do not fit the code."""


class UnfinishedError(SaysoError):
    """The model did not end its utterance within the length limit."""


class CorpusError(SaysoError):
    """A corpus, or a file made from one, that is not on the list of consented corpora."""
