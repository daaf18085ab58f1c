"""What stays behind when files go to a cluster: secrets, hidden files, links that lead elsewhere.

Whoever may use a cluster can read the packages of its jobs. `mgrpo submit` packs by these rules.
Where Ray itself packs a clone, it does so by `excludes` of `cluster/runtime_env.yaml`, which holds
the same names.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

SECRET_NAMES = (
    # variables and logins of programs
    *(".env", ".env.*", "*.env", ".envrc", ".netrc", "_netrc", ".git-credentials", ".pgpass"),
    *(".my.cnf", ".npmrc", ".pypirc", ".htpasswd", ".s3cfg", ".boto", ".dockercfg"),
    *(".dockerconfigjson", ".databrickscfg", ".vault-token", "auth_token"),
    *("huggingface/token", "huggingface/stored_tokens"),
    *("kubeconfig*", "*.kubeconfig", "kube/config"),
    # folders in which tools keep them
    *(".aws", ".azure", ".config", ".docker", ".gcloud", ".gnupg", ".huggingface", ".kaggle"),
    *(".kube", ".oci", ".ray", ".ssh", "secrets", "legacy_credentials"),
    # private keys
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
    # files that clouds let one download, or that their tools write
    *("credentials", "*credentials.json", "*credentials.csv", "credentials.yaml"),
    *("credentials.yml", "credentials.toml", "credentials.ini", "credentials.db"),
    *("access_tokens.db", "accessTokens.json", "msal_token_cache.*", "client_secret*.json"),
    *("*service_account*.json", "*service-account*.json", "*serviceaccount*.json"),
    *("*serviceAccount*.json", "*firebase-adminsdk*.json", "kaggle.json", "key.json"),
    *("keyfile.json", "sa-key.json", "sa_key.json", "gcp-key.json", "gcp_key.json"),
    *("rootkey.csv", "*accessKeys.csv", "*.tfvars", "*.tfstate", "*.tfstate.*"),
    *("secrets.json", "secrets.toml", "secrets.yaml", "secrets.yml"),
)
"""Of files and folders, in any folder, as in a .gitignore; `*` is the only wildcard."""
SECRET = re.compile(
    "(^|/)(" + "|".join(re.escape(name).replace(r"\*", "[^/]*") for name in SECRET_NAMES) + ")(/|$)"
)
DERIVED = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")


def may_hold_secret(path: Path) -> bool:
    """Whether a relative path has the name of a secret, or leads through a folder that has."""
    return SECRET.search(path.as_posix()) is not None


def copy_folder(source: Path, target: Path, base: Path) -> dict[Path, str]:
    """Copy a folder without what stays behind.

    Args:
        source: an existing folder below `base`, without links in its path.
        base: of the paths that are reported.

    Returns:
        What was left out, relative to `base`, and why; without derived files.
    """
    left_out: dict[Path, str] = {}

    def ignored(folder: str, names: list[str]) -> set[str]:
        derived = DERIVED(folder, names)
        reasons = {
            Path(folder, name): reason
            for name in names
            if name not in derived and (reason := why_left_out(Path(folder, name), source, base))
        }
        left_out.update({path.relative_to(base): reason for path, reason in reasons.items()})
        return {*derived, *(path.name for path in reasons)}

    shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
    return left_out


def why_left_out(path: Path, source: Path, base: Path) -> str | None:
    """Why a file, folder or link in `source` is not sent; None if it is."""
    if may_hold_secret(path.relative_to(base)):
        return "may hold a secret"
    if path.name.startswith("."):
        return "is hidden"
    return why_not_followed(path, source, base) if path.is_symlink() else None


def why_not_followed(link: Path, source: Path, base: Path) -> str | None:
    """Why what a link in `source` leads to is not sent in its place; None if it is."""
    end = Path(os.path.realpath(link))
    if not end.is_relative_to(source):
        return f"is a link that leads out of {source.name}"
    if not end.exists():
        return "is a link to nothing"
    if end in {Path(os.path.realpath(folder)) for folder in link.parents}:
        return "is a link to a folder that it lies in"
    return "is a link to what may hold a secret" if may_hold_secret(end.relative_to(base)) else None


def links_not_followed(
    folder: Path, source: Path, is_excluded: Callable[[Path], bool]
) -> Iterator[tuple[Path, str]]:
    """The links in `folder` and below that must not be followed, and why.

    Args:
        folder: `source`, or a folder in it.
        source: the folder that is sent, without links in its path.
        is_excluded: of a path that is not sent anyway.
    """
    for path in sorted(folder.iterdir()):
        if is_excluded(path):
            continue
        reason = why_not_followed(path, source, source) if path.is_symlink() else None
        if reason is not None:
            yield path, reason
        elif path.is_dir():
            yield from links_not_followed(path, source, is_excluded)
