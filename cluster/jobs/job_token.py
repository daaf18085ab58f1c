"""The cluster's token, from the places where Ray looks for it."""

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
    """A token and its source. Printing it shows only the source."""

    value: str
    source: str

    def __repr__(self) -> str:
        return f"the token from {self.source}"


def find_token(environment: Mapping[str, str] = os.environ) -> Token | None:
    """The token of this user, if there is one.

    Ray's own command line also requires RAY_AUTH_MODE=token; here an existing token is always sent,
    and a cluster without authentication ignores it. RAY_AUTH_MODE=disabled prevents that.

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
