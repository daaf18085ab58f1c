"""`mgrpo push`: uploads a run's policy with its model card to a model hub.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mgrpo.commands.policy_arguments import add_policy
from mgrpo.errors import MgrpoError, ModelError
from mgrpo.records.json_object import JsonObject

EXAMPLES = """\
examples:
  mgrpo push wide my-name/wide --dry-run       the files, and what would be sent; no network
  mgrpo push wide my-name/wide --private
  mgrpo push runs/wide/policies/step-000050 my-name/wide

The hub is that of HF_ENDPOINT, huggingface.co by default. The token is HF_TOKEN's or that of
`hf auth login`; it is never printed. Read policy/README.md, the model card, before you publish it.
"""


def add_push(parser: argparse.ArgumentParser) -> None:
    add_policy(parser, EXAMPLES)
    parser.add_argument("repo", metavar="REPO", help="owner/name on the hub; made if it is missing")
    parser.add_argument(
        "--private", action="store_true", help="make the repository private if it is new"
    )
    parser.add_argument("--revision", metavar="BRANCH", help="an existing branch; default: main")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    parser.add_argument("--dry-run", action="store_true", help="list the files, and send nothing")
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.set_defaults(run_command=run_push)


def run_push(args: argparse.Namespace) -> int:
    from mgrpo.storage.run_directory import find_policy

    run_dir, policy = find_policy(args.run)
    add_card(run_dir, policy)
    files = {
        file.relative_to(policy).as_posix(): file.stat().st_size
        for file in sorted(policy.rglob("*"))
        if file.is_file()
    }
    facts: JsonObject = {
        "policy": str(policy),
        "repo": args.repo,
        "endpoint": endpoint(),
        "private": args.private,
        "files": files,
        "url": None,
    }
    if not args.json:
        print(f"{policy} -> {facts['endpoint']}/{args.repo}")
        for name, size in files.items():
            print(f"  {name}  {size / 1e6:,.2f} MB")
    if not args.dry_run:
        facts["url"] = upload(
            policy,
            args.repo,
            private=args.private,
            revision=args.revision,
            message=args.message or f"mgrpo: {run_dir.resolve().name}, {policy.name}",
        )
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        print(f"pushed: {facts['url']}" if facts["url"] else "dry run: nothing was sent")
    return 0


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def add_card(run_dir: Path, policy: Path) -> None:
    """Write the cards of a run of before there were any; a policy of the middle has none."""
    from mgrpo.report.card import CARD_FILE, write_cards

    if not (policy / CARD_FILE).is_file():
        write_cards(run_dir)
    if not (policy / CARD_FILE).is_file():
        print(f"note: {policy} has no model card ({CARD_FILE})", file=sys.stderr)


def upload(policy: Path, repo: str, *, private: bool, revision: str | None, message: str) -> str:
    """Send a policy's files in one commit; returns its address.

    Raises:
        ModelError: there is no token.
        MgrpoError: the hub refused, or was not reached.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise ModelError(
            "There is no token of the hub. Set HF_TOKEN, or log in once with `hf auth login`; the "
            "token needs the right to write."
        )
    with hub_errors(repo):
        api = HfApi(endpoint=endpoint())
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=policy, revision=revision, commit_message=message
        )
    return str(commit.commit_url)


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """The client's errors, as ours."""
    from httpx2 import HTTPError  # what huggingface_hub sends requests by
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except HFValidationError as error:
        raise MgrpoError(f"REPO {repo!r} is no name of a repository: {error}") from error
    except OfflineModeIsEnabled as error:
        raise MgrpoError("HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it.") from error
    except (HTTPError, OSError, ValueError) as error:  # ValueError: of an answer that it can't read
        reason = " ".join(str(error).split())
        raise MgrpoError(
            f"The hub {endpoint()} did not take {repo}: {reason} Check the name, the "
            "token's right to write there, and the network; the same command tries again."
        ) from error
