"""The names of environment variables and options that hold secrets."""

from __future__ import annotations

import re

# Words for secrets inside names. "token" alone does not count, because a model has tokens too.
SECRET_WORDS = (
    r"(?:(?:api|access|private|secret)[_-]?key|(?:hf|hub|api|auth|access|bearer|session)[_-]?token"
    r"|secret|password|passwd|passphrase)"
)
SECRET_NAME = re.compile(
    r"(?:^|_)(?:TOKEN|KEY(?:_ID)?|AUTH|COOKIE|CREDENTIALS?)$|APIKEY|SECRET|PASSW(?:OR)?D|PASSPHRASE|AUTHORIZATION",
    re.IGNORECASE,
)
SECRET_FLAG = re.compile(rf"--(?:token|(?:[\w-]+-)?{SECRET_WORDS})", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether an environment variable or an option with this name holds a secret."""
    return bool(SECRET_NAME.search(name) or SECRET_FLAG.fullmatch(name.partition("=")[0]))
