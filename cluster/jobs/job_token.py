"""The token that a cluster asks for: where Ray looks for it, and so do we."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mgrpo.errors import JobError

WHERE_TO_PUT_IT = (
    "Set RAY_AUTH_TOKEN to the cluster's token, or RAY_AUTH_TOKEN_PATH to a file that holds it, "
    "or put it into ~/.ray/auth_token."
)


@dataclass(frozen=True)
class Token:
    """A token and where it was found. Printing it shows the latter alone."""

    value: str
    source: str

    def __repr__(self) -> str:
        return f"the token from {self.source}"


def find_token(environment: Mapping[str, str] = os.environ) -> Token | None:
    """The token of this user, if there is one.

    Ray's own command line wants RAY_AUTH_MODE=token beside it; here a token that is there is
    used, and a cluster without authentication does not look at it. RAY_AUTH_MODE=disabled
    holds it back.

    Raises:
        JobError: RAY_AUTH_TOKEN_PATH names a file that cannot be read, or is empty.
    """
    if environment.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    if value := environment.get("RAY_AUTH_TOKEN", "").strip():
        return Token(value, "RAY_AUTH_TOKEN")
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named or "~/.ray/auth_token").expanduser()
    try:
        value = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if named is None:
            return None
        raise JobError(
            f"RAY_AUTH_TOKEN_PATH names {file}, which cannot be read: {error}"
        ) from error
    if not value and named is not None:
        raise JobError(f"RAY_AUTH_TOKEN_PATH names {file}, which is empty. {WHERE_TO_PUT_IT}")
    return Token(value, str(file)) if value else None
