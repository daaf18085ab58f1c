"""A recipe that holds a secret is refused: it is saved with the run, and goes to trackers, to
reports and into messages. Secrets come from environment variables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.records.secret_values import HIDDEN, STORAGE_OPTIONS, is_secret_key, secrets_in

SAVED = "which would stand in config.yaml, in trackers and in messages."
FOR_STORAGE = (
    "Delete it, and set the environment variable of the storage (such as AWS_SECRET_ACCESS_KEY), "
    "or FSSPEC_<SCHEME>_<OPTION>, such as FSSPEC_S3_SECRET for s3://."
)
FOR_OTHERS = (
    "Delete it, and set the environment variable from which its reader takes it (HF_TOKEN, "
    "MLFLOW_TRACKING_PASSWORD, FSSPEC_<SCHEME>_<OPTION>; of a reward, `auth: {from_env: NAME}`)."
)


def refuse_secrets(tree: Mapping[str, object], source: str) -> None:
    """
    Raises:
        ConfigError: names each key that holds a secret, and not the secret.
    """
    faults = list(secret_faults(tree))
    if faults:
        raise ConfigError(faults, source=source)


def secret_faults(value: object, path: str = "") -> Iterator[ConfigFault]:
    """A fault for each secret at or below a recipe's key."""
    if isinstance(value, Mapping):
        pairs: Iterable[tuple[object, object]] = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    else:
        if isinstance(value, str) and (found := secrets_in(value)):
            yield secret_fault(path, f"holds {found[0][0]}, {SAVED}")
        return
    for key, inner in pairs:
        where = f"{path}.{key}" if path else str(key)
        if is_secret_key(where) and inner not in (None, True, False, ""):
            yield secret_fault(where, f"is a secret by its name, {SAVED}")
        else:
            yield from secret_faults(inner, where)


def secret_fault(path: str, reason: str) -> ConfigFault:
    is_option = path.startswith(f"{STORAGE_OPTIONS}.")
    return ConfigFault(path, HIDDEN, reason, FOR_STORAGE if is_option else FOR_OTHERS)
