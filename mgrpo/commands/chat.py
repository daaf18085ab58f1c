"""`mgrpo chat`: questions to a run's policy, with its corrections, in a terminal or a pipe.

The policy runs by transformers in this process: one person's questions come one at a time, and it
is there in seconds, without Ray, an engine and the recipe's data. `mgrpo serve` has vLLM's server.
Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mgrpo.commands.policy_arguments import add_guidance, add_policy, refuse_unknown_phrase
from mgrpo.records.json_object import JsonObject

if TYPE_CHECKING:
    from mgrpo.models.turns import Answered, Asked, Turns

EXAMPLES = """\
examples:
  mgrpo chat quickstart                                ask, and read both turns; Ctrl-D ends
  mgrpo chat quickstart --once "What is 12 + 30?"      one question
  mgrpo chat quickstart --guidance 2 --temperature 1 < questions.txt

A line is a question of its own: the policy was trained on single problems.
"""


def add_chat(parser: argparse.ArgumentParser) -> None:
    add_policy(parser, EXAMPLES)
    parser.add_argument("--once", metavar="QUESTION", help="answer this question, and end")
    add_guidance(parser)
    parser.add_argument(
        "--temperature", metavar="T", type=temperature, default=0.0, help="default: 0, greedy"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of sampling; default: 0")
    parser.add_argument("--json", action="store_true", help="one JSON object for each question")
    parser.set_defaults(run_command=run_chat)


@dataclass(frozen=True)
class Exchange:
    """A question with the turns of its answer."""

    question: str
    turns: list[Answered]

    def to_json(self) -> JsonObject:
        return {
            "question": self.question,
            "turns": [
                {
                    "layer": turn.asked.layer.name,
                    "guidance": turn.asked.guidance,
                    "text": turn.text,
                    "num_tokens": len(turn.token_ids),
                    "is_cut": turn.is_cut,
                }
                for turn in self.turns
            ],
        }


def run_chat(args: argparse.Namespace) -> int:
    from mgrpo.config.load import load_recipe
    from mgrpo.models.local_policy import LocalPolicy
    from mgrpo.models.policy_tokenizer import load_builder
    from mgrpo.models.turns import Turns
    from mgrpo.storage.run_directory import CONFIG_FILE, find_policy

    run_dir, folder = find_policy(args.run)
    config = load_recipe(run_dir / CONFIG_FILE)
    builder = load_builder(str(folder), config.model)
    turns = Turns(builder, config.layers)
    refuse_unknown_phrase(args.guidance, turns.num_phrases)
    print(f"policy: {folder}", file=sys.stderr)
    policy = LocalPolicy(folder, builder.stop_ids, temperature=args.temperature, seed=args.seed)
    for question in questions(args.once):
        found = exchange(turns, policy.write, question, args.guidance)
        print(json.dumps(found.to_json()) if args.json else shown(found), flush=True)
    return 0


def temperature(text: str) -> float:
    value = float(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be below 0, and is {text}")
    return value


def questions(once: str | None) -> Iterator[str]:
    """The one of the command, or each line that is not empty."""
    if once is not None:
        yield once
        return
    is_terminal = sys.stdin.isatty()
    while True:
        if is_terminal:
            print("\n> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def exchange(
    turns: Turns, write: Callable[[Asked], list[int]], question: str, phrase: int
) -> Exchange:
    """All turns of the policy on one question."""
    from mgrpo.models.turns import asked_in

    problem = asked_in(question)
    answers: list[Answered] = []
    while (asked := turns.following(problem, answers, phrase)) is not None:
        answers.append(turns.answered(asked, write(asked)))
    return Exchange(question, answers)


def shown(found: Exchange) -> str:
    parts = []
    for turn in found.turns:
        guidance = f" · {turn.asked.guidance}" if turn.asked.guidance else ""
        cut = " [cut: out of tokens]" if turn.is_cut else ""
        parts.append(f"[{turn.asked.layer.name}{guidance}]\n{turn.text}{cut}")
    return "\n\n".join(parts)
