"""The exceptions that end a run, or a check, without a verdict."""

from __future__ import annotations


class UsageError(Exception):
    """Bad input. The message is one sentence that names the file, the key and the mend."""


class NotHere(UsageError):
    """A checkpoint is not on this machine. This is bad input only if a server must be started with it."""


class ObservationError(Exception):
    """An observation could not be made: the server died, refused the pair or gave an unusable answer.

    ``sentence`` says what happened; ``log_tail`` holds the last lines of the server's log, if there was one.
    """

    def __init__(self, sentence: str, log_tail: str = "") -> None:
        super().__init__(sentence, log_tail)
        self.sentence = sentence
        self.log_tail = log_tail

    def __str__(self) -> str:
        return self.sentence


class NotRecorded(ObservationError):
    """Recorded evidence does not hold this observation, so there is nothing to diagnose."""


class Unsupported(Exception):
    """This hardware or this vLLM does not support it; the message says why, with the version and the missing name."""
