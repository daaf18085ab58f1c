"""What a secret is, by its name and by its form, and text without it.

    redacted("GET https://me:hunter2@host/")     "GET https://me:(not shown)@host/"
    redacted_arguments(["--api-key", "abc"])     ["--api-key", "(not shown)"]
    is_secret_name("AWS_SECRET_ACCESS_KEY")      True

A recipe holds none (`mgrpo.config.no_secrets`), so neither does what is written from it. Arguments
of the command line and messages of errors are redacted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

HIDDEN = "(not shown)"
FEWEST_CHARACTERS = 8
"""Of a variable's value: a shorter one may be any word."""
STORAGE_OPTIONS = "output.storage.options"
"""Where a recipe's keys `key` and `token` mean credentials; elsewhere they may be a column or a
token of the model."""

SURE = (
    r"(?:SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTHORIZATION|CONNECTION_?STRING"
    r"|(?:API|ACCESS|AUTH|BEARER|SESSION|SECURITY|PRIVATE|HF|HUB)[_-]?(?:KEY|TOKEN))"
)
NAME = re.compile(rf"(?:TOKEN|KEY|{SURE})(?![A-Z])", re.IGNORECASE)
"""In the name of a variable, of an option, or of an address's parameter."""
SURE_NAME = re.compile(rf"{SURE}(?:[_-]?ID)?$", re.IGNORECASE)
"""The end of the name of any setting that holds a secret: api_key, and neither api_key_env nor
stop_token."""


def assigned(name: str) -> re.Pattern[str]:
    """What follows such a name in a text: `--env=JUDGE_KEY=...`, `{secret: ...}`."""
    flags = re.IGNORECASE | re.DOTALL
    return re.compile(rf"({name}(?![A-Z])[\w.-]*[\"']?\s*[\s=:]\s*)\S.*", flags)


ASSIGNED = assigned(rf"(?:TOKEN|KEY|{SURE})")
SURELY_ASSIGNED = assigned(SURE)
FORMS = {
    "an address with a password": re.compile(r"(://[^\s/?#@:]*:)[^\s/?#]+(?=@)"),
    "an address with a token": re.compile(
        rf"([?&][\w.-]*(?:TOKEN|KEY|SIG|SIGNATURE|{SURE})(?![A-Z])[\w.-]*=)"
        rf"(?!{re.escape(HIDDEN)})[^\s&#'\"]+",
        re.IGNORECASE,
    ),
    "a token of a well-known form": re.compile(
        r"()(?<![A-Za-z0-9])(?:"
        r"hf_[A-Za-z0-9]{20,}"
        r"|sk-(?=[\w-]*\d)[\w-]{20,}"
        r"|(?:AKIA|ASIA)[A-Z0-9]{16}"
        r"|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
        r"|xox[abeoprs]-[\w-]{10,}"
        r"|AIza[\w-]{35}"
        r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+"
        r")"
    ),
    "a private key": re.compile(
        r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL
    ),
}
"""What is hidden of a text, after the group that is kept."""


def is_secret_name(name: str) -> bool:
    """Whether a variable or an option of this name holds a secret; the place of a file is none."""
    is_place = name.upper().endswith(("_PATH", "_FILE"))
    return not is_place and NAME.search(name) is not None


def is_secret_key(path: str) -> bool:
    """Whether a recipe's key, by its dotted path, holds a secret."""
    if path.startswith(f"{STORAGE_OPTIONS}."):
        return is_secret_name(path.removeprefix(STORAGE_OPTIONS))
    return SURE_NAME.search(path) is not None


def secrets_in(
    text: str, environment: Mapping[str, str] = os.environ
) -> list[tuple[str, re.Pattern[str]]]:
    """(what it is, what finds it) of each secret in a text."""
    values = [
        (f"the value of the environment variable {name}", re.compile(f"(){re.escape(value)}"))
        for name, value in environment.items()
        if value in text and is_secret_name(name) and is_secret_value(value)
    ]
    return values + [(what, form) for what, form in FORMS.items() if form.search(text)]


def is_secret_value(value: str) -> bool:
    """Of a variable with a secret's name: neither a short word nor the path of a file."""
    if len(value) < FEWEST_CHARACTERS:
        return False
    try:
        return not Path(value).expanduser().exists()
    except (OSError, RuntimeError):  # too long for a path, or "~nobody"
        return True


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A text without the secrets that their form tells, and without those of the environment."""
    for _, found in secrets_in(text, environment):
        text = found.sub(rf"\1{HIDDEN}", text)
    return text


def redacted_value(path: str, text: str) -> str:
    """The text of a recipe's value, right or wrong, as a message may show it.

    Args:
        path: of its key, dotted.
    """
    if is_secret_key(path):
        return HIDDEN
    names = ASSIGNED if path.startswith(STORAGE_OPTIONS) else SURELY_ASSIGNED
    return redacted(names.sub(rf"\1{HIDDEN}", text))


def redacted_arguments(arguments: Iterable[str]) -> list[str]:
    """A command's arguments without what a secret's name stands before."""
    shown, is_value = [], False
    for argument in arguments:
        named = ASSIGNED.sub(rf"\1{HIDDEN}", argument)
        shown.append(HIDDEN if is_value else redacted(named))
        is_value = argument.startswith("-") and named == argument and is_secret_name(argument)
    return shown
