"""`mgrpo serve`: vLLM's OpenAI server over a run's policy, with its corrections as a second model.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from mgrpo.commands.policy_arguments import add_guidance, add_policy, refuse_unknown_phrase

EXAMPLES = """\
examples:
  mgrpo serve wide                           http://127.0.0.1:8000/v1, models wide, wide-corrected
  mgrpo serve wide --port 9000 --vllm="--api-key secret --max-num-seqs 64"

  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"model": "wide-corrected", "messages": [{"role": "user", "content": "What is 12 + 30?"}]}'

Without --api-key whoever reaches the port can use the model.
"""


def add_serve(parser: argparse.ArgumentParser) -> None:
    add_policy(parser, EXAMPLES)
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    parser.add_argument(
        "--vllm", metavar="ARGUMENTS", type=shlex.split, default=[], help="further ones of vLLM's"
    )
    parser.add_argument("--name", metavar="NAME", help="the model's; default: the run's")
    add_guidance(parser, unless=", unless a request has `guidance`")
    parser.add_argument(
        "--start-s", metavar="S", type=float, default=900.0, help="deadline of the start, s"
    )
    parser.add_argument(
        "--request-s",
        metavar="S",
        type=float,
        default=3600.0,
        help="deadline of one request, s",
    )
    parser.set_defaults(run_command=run_serve)


def run_serve(args: argparse.Namespace) -> int:
    from aiohttp import web

    from cluster.vllm_build import installed_build
    from mgrpo.config.load import load_recipe
    from mgrpo.models.policy_tokenizer import load_builder
    from mgrpo.models.turns import Turns
    from mgrpo.serving.app import Served, make_app
    from mgrpo.serving.vllm_process import vllm_server
    from mgrpo.storage.run_directory import CONFIG_FILE, find_policy
    from mgrpo.training.stop_signals import signals_as_errors

    run_dir, policy = find_policy(args.run)
    config = load_recipe(run_dir / CONFIG_FILE)
    turns = Turns(load_builder(str(policy), config.model), config.layers)
    refuse_unknown_phrase(args.guidance, turns.num_phrases)
    name = args.name or run_dir.resolve().name
    with (
        signals_as_errors(),
        vllm_server(
            policy,
            config.engines,
            dtype=config.engines.dtype_for(config.model.dtype),
            name=name,
            is_cpu=installed_build() == "cpu",
            extra=args.vllm,
            start_s=args.start_s,
        ) as upstream,
    ):
        served = Served(upstream, name, turns, args.guidance, args.request_s)
        also = f" and {served.corrected_name}" if turns.corrections else ""
        print(f"policy: {policy}; models {name}{also}", file=sys.stderr)
        web.run_app(make_app(served), host=args.host, port=args.port, handle_signals=True)
    return 0
