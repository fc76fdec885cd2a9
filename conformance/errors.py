"""The ways in which the suite stops short of a verdict."""

from __future__ import annotations


class UsageError(Exception):
    """Bad input. The message is one sentence that names file, key and mend."""


class NotHere(UsageError):
    """A checkpoint that is not on this machine; bad input only where a server has to be started with it."""


class ObservationError(Exception):
    """An observation could not be made: the server died, refused the pair, answered rubbish.

    ``sentence`` says what happened; ``log_tail`` holds the last lines of the server's log, if there was one.
    """

    def __init__(self, sentence: str, log_tail: str = "") -> None:
        super().__init__(sentence, log_tail)
        self.sentence = sentence
        self.log_tail = log_tail

    def __str__(self) -> str:
        return self.sentence


class NotRecorded(ObservationError):
    """Evidence that is only read does not hold this observation; of what was never seen nothing can be diagnosed."""


class Unsupported(Exception):
    """This hardware or this vLLM cannot do it; the message says why, with the version and the missing name."""
