"""`mgrpo completion bash`: a script with which the shell completes commands, options and names.

    eval "$(mgrpo completion bash)"        # in ~/.bashrc; zsh in ~/.zshrc

It is made from the parser itself, and calls no Python at a key press.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

SHELLS = ("bash", "zsh")
RUNS = "$(cd runs 2>/dev/null && ls -d */ 2>/dev/null | tr -d /)"
NAMES_OF_RUNS = ("RUN", "MODEL_OR_RUN")
SCRIPT = """\
{head}_mgrpo() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  case "${{COMP_WORDS[1]}} $before" in
{choices}
  *)
    if [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"; else
    case "${{COMP_WORDS[1]}}" in
{words}
    esac; fi ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _mgrpo mgrpo
"""
"""Files are completed where no word fits."""


def add_completion(
    parser: argparse.ArgumentParser, whole: Callable[[], argparse.ArgumentParser]
) -> None:
    """Add the arguments of `mgrpo completion`; `whole` makes the parser of all commands."""
    parser.add_argument("shell", choices=SHELLS)

    def run(args: argparse.Namespace) -> int:
        print(completion_script(whole(), args.shell), end="")
        return 0

    parser.set_defaults(run_command=run)


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    commands = subcommands(parser)
    values = [
        f'  "{name} {option}") words="{" ".join(map(str, found))}" ;;'
        for name, one in commands.items()
        for action in one._actions
        if (found := choices_of(action))
        for option in action.option_strings
    ]
    words = [f'    {name}) words="{" ".join(words_of(one))}" ;;' for name, one in commands.items()]
    return SCRIPT.format(
        head="autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "",
        choices="\n".join(values),
        commands=" ".join(commands),
        words="\n".join(words),
    )


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def choices_of(action: argparse.Action) -> list[str]:
    """What may follow an option; a shell word that lists the runs among them."""
    if action.dest == "suite":
        from mgrpo.config.suites import suite_files

        return list(suite_files())
    if action.option_strings and action.metavar in NAMES_OF_RUNS:
        return [RUNS]
    return list(action.choices or ()) if action.option_strings else []


def words_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Options, actions below, and names that the command's first argument may be."""
    yield from subcommands(parser)
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
        if not action.option_strings and action.metavar == "RECIPE":
            from mgrpo.config.load import shipped_recipes

            yield from shipped_recipes()
        elif not action.option_strings and action.metavar in NAMES_OF_RUNS:
            yield RUNS
