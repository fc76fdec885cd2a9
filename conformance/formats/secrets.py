"""Which names of environment variables and options say that what they hold is a secret."""

from __future__ import annotations

import re

# Words for secrets inside names; "token" alone is none, since a model's own are called so too.
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
    """Whether an environment variable of this name, or an option, holds what must not be written down."""
    return bool(SECRET_NAME.search(name) or SECRET_FLAG.fullmatch(name.partition("=")[0]))
