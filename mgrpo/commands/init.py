"""`mgrpo init`: writes a recipe that passes the check and trains, with what it needs.

Light to import: the command imports heavy packages when it runs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mgrpo.commands.init_files import (
    EXAMPLE_REWARD,
    RECIPE,
    SCHEMA_FILE,
    TEXT_REWARD,
    heldout_lines,
)
from mgrpo.errors import ConfigError, ConfigFault, DataError
from mgrpo.records.json_object import JsonObject

EXAMPLES = """\
examples:
  mgrpo init sums                           sums.yaml, data.jsonl, heldout.jsonl, reward.py
  mgrpo init --data train.parquet           train.yaml for your own rows
  mgrpo init mine --data train.csv --question prompt --answer label.value
  mgrpo init mine --data rows.jsonl --reward rewards.py:exact
  mgrpo init --from trl train_grpo.py       train_grpo.yaml from a TRL script, which is only read

Files that exist are never written over.
"""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
QUESTIONS = ("question", "problem", "prompt", "query", "input", "instruction")
ANSWERS = (
    *("answer", "ground_truth", "reward_model.ground_truth", "final_answer", "expected_answer"),
    *("solution", "target", "label", "reference", "output", "response"),
)
MAX_READ_ROWS = 200  # for columns and lengths
NUM_TRAIN, NUM_HELDOUT = 256, 32  # rows of the example
EXAMPLE_SEED = 7
NUMBER = re.compile(r"\s*[-+]?\d[\d,]*(?:\.\d+)?\s*")
CHARACTERS_PER_TOKEN = 2.5  # few, so that no row is too long
STEP_OF_LENGTHS = 64  # tokens


def add_init(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="of the recipe and of its runs; default: that of FILE or SCRIPT without its ending",
    )
    own = parser.add_argument_group("your own data")
    own.add_argument("--data", metavar="FILE", type=Path, help="rows to train on, or a folder")
    own.add_argument("--heldout", metavar="FILE", type=Path, help="rows that are never trained on")
    own.add_argument("--question", metavar="COLUMN", help="default: found by its name")
    own.add_argument("--answer", metavar="COLUMN", help="default: found by its name")
    own.add_argument(
        "--reward", metavar="FILE.py:FUNCTION", help="a check of yours: f(completion, problem)"
    )
    parser.add_argument("--model", metavar="M", default="default", help="default: the shipped one")
    parser.add_argument(
        "--from",
        dest="source",
        nargs=2,
        metavar=("trl", "SCRIPT"),
        help="translate the script of another system, without running it",
    )
    parser.set_defaults(run_command=run_init)


def run_init(args: argparse.Namespace) -> int:
    args.name = args.name or default_name(args)
    if not NAME.fullmatch(args.name):
        raise refused("NAME", args.name, f"must match {NAME.pattern}.")
    if args.source is not None:
        from mgrpo.commands.init_from_trl import files_from_trl

        system, script = args.source
        if system != "trl":
            raise refused("--from", system, "only scripts of trl can be read.", "--from trl SCRIPT")
        files = files_from_trl(args.name, Path(script))
    elif args.data is not None:
        files = files_for_data(args)
    elif args.heldout or args.question or args.answer or args.reward:
        why = "--heldout, --question, --answer and --reward need it."
        raise refused("--data", "(not given)", why)
    else:
        files = example_files(args.name, args.model)
    from mgrpo.config.schema import schema_text

    files[SCHEMA_FILE] = schema_text()
    write_new(files)
    print(f"\nNext:\n  mgrpo check {args.name}\n  mgrpo train {args.name}")
    return 0


def default_name(args: argparse.Namespace) -> str:
    """That of the file which the recipe is made for."""
    path = args.data if args.source is None else Path(args.source[1])
    if path is None:
        why = "a recipe that is made for no file of yours needs a name."
        raise refused("NAME", "(not given)", why, "mgrpo init sums")
    name: str = path.resolve().stem
    return name


def refused(key: str, value: str, reason: str, suggestion: str = "") -> ConfigError:
    return ConfigError([ConfigFault(key, value, reason, suggestion)], source="the command")


def write_new(files: Mapping[str, str]) -> None:
    """Write files into the current folder.

    Raises:
        ConfigError: one is there with another content; then none is written.
    """
    there = [name for name, text in files.items() if Path(name).exists() and not same(name, text)]
    if there := [name for name in there if name != SCHEMA_FILE]:
        advice = "Move the files away, or change NAME."
        raise refused("NAME", ", ".join(there), "would be written over.", advice)
    for name, text in files.items():
        Path(name).write_text(text, encoding="utf-8")
        print(f"wrote {name}")


def same(name: str, text: str) -> bool:
    return Path(name).is_file() and Path(name).read_text(encoding="utf-8", errors="replace") == text


def example_files(name: str, model: str) -> dict[str, str]:
    """A task that the shipped policy can learn: sums, with an own reward function."""
    rows = list(islice(sums(), NUM_TRAIN + NUM_HELDOUT))
    recipe = RECIPE.format(
        name=name,
        description="sums from data.jsonl, with the reward of reward.py",
        **model_keys(model, max_prompt_tokens=64, max_completion_tokens=64),
        path="data.jsonl",
        question="question",
        answer="answer",
        heldout=heldout_lines("heldout.jsonl", "question", "answer"),
        check="./reward.py:exact",
        check_comment="a function of yours; math_answer and format are built in",
        solve_prompt='""',
        correct_prompt="Check the attempt.",
    )
    return {
        f"{name}.yaml": recipe,
        "data.jsonl": json_lines(rows[:NUM_TRAIN]),
        "heldout.jsonl": json_lines(rows[NUM_TRAIN:]),
        "reward.py": EXAMPLE_REWARD,
    }


def sums() -> Iterator[dict[str, str]]:
    """Different sums of two numbers, worded as the shipped policy knows them."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    random.Random(EXAMPLE_SEED).shuffle(pairs)
    for a, b in pairs:
        question = f"State the final answer to the following arithmetic problem: {a} + {b} ="
        yield {"question": question, "answer": str(a + b)}


def json_lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@dataclass(frozen=True, slots=True)
class Columns:
    """What is known of a user's rows from the first of them."""

    question: str
    answer: str
    questions: list[str]
    answers: list[str]

    @property
    def are_numbers(self) -> bool:
        finals = [text.rpartition("####")[2] for text in self.answers]
        return bool(finals) and all(NUMBER.fullmatch(text) for text in finals)


def files_for_data(args: argparse.Namespace) -> dict[str, str]:
    columns = columns_of(args.data, args.question, args.answer)
    reward: dict[str, str] = {}
    if args.reward:
        check, comment = own_check(args.reward), "your function"
        solve = ""
    elif columns.are_numbers:
        check, comment = "math_answer", "the answers are numbers; your own: ./reward.py:exact"
        solve = "Reason step by step, then give the result as \\boxed{result}."
    else:
        reward = {"reward.py": TEXT_REWARD}
        check, comment = "./reward.py:exact", "a function to change: what is a right answer?"
        solve = "Reason step by step, then write the answer alone on the last line."
    heldout = str(args.heldout) if args.heldout else ""
    recipe = RECIPE.format(
        name=args.name,
        description=f"problems from {args.data}",
        **model_keys(
            args.model,
            max_prompt_tokens=prompt_tokens(columns.questions, args.model, solve),
            max_completion_tokens=128 if args.model == "default" else 1024,
        ),
        path=args.data,
        question=columns.question,
        answer=columns.answer,
        heldout=heldout_lines(heldout, columns.question, columns.answer),
        check=check,
        check_comment=comment,
        solve_prompt=quoted(solve),
        correct_prompt=quoted(
            f"Check the attempt and correct it where it is wrong. {solve}"
            if solve
            else "Check the attempt."
        ),
    )
    return {f"{args.name}.yaml": recipe, **reward}


def own_check(target: str) -> str:
    """`rewards.py:f` as a recipe names it.

    Raises:
        ConfigError: there is no such file, or no function is named.
    """
    file, _, function = target.rpartition(":")
    if not function.isidentifier() or not Path(file).is_file():
        raise refused("--reward", target, "names no function of a file here.", "rewards.py:exact")
    return target if Path(file).is_absolute() else f"./{Path(file)}:{function}"


def quoted(text: str) -> str:
    """A YAML text in single quotes, in which a backslash is one."""
    return "'" + text.replace("'", "''") + "'"


def model_keys(model: str, *, max_prompt_tokens: int, max_completion_tokens: int) -> JsonObject:
    """The keys that depend on the model's size."""
    is_small = model == "default"
    return {
        "model": model,
        "dtype": "float32" if is_small else "bfloat16",
        "learning_rate": "2.5e-4" if is_small else "1.0e-6",
        "max_prompt_tokens": max_prompt_tokens,
        "max_completion_tokens": max_completion_tokens,
    }


def columns_of(file: Path, question: str | None, answer: str | None) -> Columns:
    """The columns of question and answer in a file of rows.

    Raises:
        DataError: the file cannot be read, or no column has a usual name.
    """
    from mgrpo.data.formats.files import files_of, read_file

    first = files_of(file)[0] if file.is_dir() else file
    rows = [
        dict(flat(row.value))
        for row in islice(read_file(first), MAX_READ_ROWS)
        if isinstance(row.value, dict)
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    chosen_question = question or found(names, QUESTIONS)
    chosen_answer = answer or found(names, ANSWERS)
    for option, chosen in (("--question", chosen_question), ("--answer", chosen_answer)):
        if chosen not in names:
            what = f"no column {chosen!r}" if chosen else "no column with a usual name"
            shown = ", ".join(names[:20]) or "none"
            raise DataError(f"{file} has {what} for {option}. Columns: {shown}. Name one of them.")
    return Columns(
        chosen_question,
        chosen_answer,
        [str(row[chosen_question]) for row in rows if chosen_question in row],
        [str(row[chosen_answer]) for row in rows if chosen_answer in row],
    )


def flat(columns: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Columns by their dotted names."""
    for name, value in columns.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def found(names: list[str], usual: tuple[str, ...]) -> str:
    """The first usual name that a column has, or ""."""
    by_lower = {name.lower(): name for name in reversed(names)}
    return next((by_lower[name] for name in usual if name in by_lower), "")


def prompt_tokens(questions: list[str], model: str, system: str) -> int:
    """A bound for prompts, from the longest question and, if it is here, the model's tokenizer."""
    longest = max(questions, key=len, default="")
    if model == "default":
        from mgrpo.config.run import ModelConfig
        from mgrpo.models.catalog import resolve_model
        from mgrpo.models.policy_tokenizer import load_builder

        builder = load_builder(resolve_model(model), ModelConfig(path=model))
        length = len(builder.encode(system + longest)) + STEP_OF_LENGTHS
        limit = 640  # of its context of 1,024 tokens
    else:
        length, limit = int(len(system + longest) / CHARACTERS_PER_TOKEN) + STEP_OF_LENGTHS, 1 << 20
    return min(-(-length // STEP_OF_LENGTHS) * STEP_OF_LENGTHS, limit)
