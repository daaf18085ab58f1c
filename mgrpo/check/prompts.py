"""Checks the model's chat template, stop tokens and context for the recipe's prompts."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actors.chat_format import ASKED, END_OF_THINK, SYSTEM_TURN, THINK, try_render, turns
from actors.templates import PromptBuilder, guidance_text
from mgrpo.check.data import fit_lines, problems_in
from mgrpo.config import CheckTerm, LayerConfig, RewardsConfig, RunConfig
from mgrpo.config.guidance import CheckGuidance
from mgrpo.config.layers import LaterLayer, SelfContinue, later_layers
from mgrpo.data.lengths import measure_prompts
from mgrpo.data.problems import LoadedData
from mgrpo.errors import MgrpoError
from mgrpo.findings import CheckLine
from mgrpo.types import Problem

MAX_MEASURED_PROMPTS = 4000  # a few seconds of tokenising; the run measures all
SAMPLE_FEEDBACK = "This is what a check says of the attempt."
SAMPLE_ATTEMPT = "Let me see. 12 + 7 = 19, so the result is \\boxed{19}."
A_DAY = "sunday the 31st"  # a substitute date, to detect prompts that contain one


def prompt_lines(
    builder: PromptBuilder, config: RunConfig, loaded: dict[str, LoadedData], limit: int | None
) -> list[CheckLine]:
    """All lines about the policy's prompts and stop tokens.

    Args:
        loaded: the data; problems without a valid prompt are removed from it.
        limit: the model's own context in tokens; None if it names none.
    """
    try:
        lines = [*template_lines(builder, config.layers[0], config.rewards), stop_line(builder)]
        lines += stop_lines_of_layers(builder, config.layers)
        if not problems_in(loaded):
            skipped = "not checked: there are no problems to build prompts from"
            return [*lines, CheckLine("warn", "context", skipped)]
        lines += fit_lines(config.data, config.layers[0], builder, loaded)
        problems = problems_in(loaded)
        if not problems:
            return lines
        limits = {
            "engines.max_model_len": config.engines.max_model_len,
            "the model's context": limit,
        }
        lines.append(context_line(builder, config.layers, problems, limits))
        return lines + token_lines(builder, config.layers, problems[0])
    except MgrpoError as error:
        return [CheckLine("fail", "prompts", str(error))]


def stop_line(builder: PromptBuilder) -> CheckLine:
    """The tokens that end a completion, and their source."""
    names = [named(builder, token) for token in builder.stop_ids]
    if not names:
        return CheckLine(
            "fail",
            "stop tokens",
            "no token ends a completion: neither the tokenizer nor generation_config.json names an "
            "end-of-sequence token, and the chat template writes no token after a turn. Set "
            "model.stop_tokens.",
        )
    also = f"; completions also end with {', '.join(names[1:])}" if names[1:] else ""
    if builder.chosen_stop_ids is not None:
        return CheckLine("ok", "stop tokens", f"{', '.join(names)} (model.stop_tokens)")
    end = builder.chat.end_of_turn_id
    if end is not None:
        return CheckLine("ok", "stop tokens", f"turns end with {named(builder, end)}{also}")
    return CheckLine(
        "warn",
        "stop tokens",
        f"completions end with {', '.join(names)}, and the chat template ends turns with "
        f"{builder.chat.end_of_turn[:20]!r}, which is not a single token. If the policy does not "
        "end its turns with these, set model.stop_tokens.",
    )


def stop_lines_of_layers(
    builder: PromptBuilder, layers: Sequence[LayerConfig]
) -> Iterator[CheckLine]:
    """What else ends the completions of the layers that say so."""
    for layer in layers:
        stop = builder.stop_of(layer)
        if stop is not None:
            ends = [*map(repr, stop.texts), *(named(builder, int(token)) for token in stop.tokens)]
            seen = "checks read it" if stop.keep_text else "checks do not read it"
            text = f"completions of layer {layer.name} also end with {', '.join(ends)}; {seen}"
            yield CheckLine("ok", "stop", text)


def named(builder: PromptBuilder, token: int) -> str:
    return f"{builder.tokenizer.decode([token], skip_special_tokens=False)} ({token})"


def template_lines(
    builder: PromptBuilder, layer: LayerConfig, rewards: RewardsConfig
) -> list[CheckLine]:
    """Properties of the chat template that affect rewards or reproducibility."""
    tokenizer: Any = builder.tokenizer
    lines = []
    if builder.chat.opening:
        lines.append(opening_line(builder.chat.opening, rewards))
    checks = [term for term in rewards.terms if isinstance(term, CheckTerm)]
    if any(term.settings.get("think_tags") for term in checks):
        if END_OF_THINK in builder.chat.before_answer:
            text = (
                "prompts already close the thinking block: think_tags does not measure the policy"
            )
            lines.append(CheckLine("warn", "template", text))
        lost = {THINK, END_OF_THINK} & set(tokenizer.all_special_tokens)
        if lost:
            text = f"{' and '.join(sorted(lost))} are special tokens, which no check can see"
            lines.append(CheckLine("fail", "template", f"{text}: think_tags would always give 0."))
    if has_date(builder):
        text = "the chat template writes today's date: prompts change daily. "
        advice = "If it takes the date as an argument, set it in model.chat_template_kwargs."
        lines.append(CheckLine("warn", "template", text + advice))
    bos = tokenizer.bos_token_id
    prompt = builder.solve_prompt(layer, ASKED)
    if bos is not None and prompt[:2] == [bos, bos]:
        text = f"prompts begin with {tokenizer.bos_token} twice: the chat template writes one, and "
        lines.append(
            CheckLine("fail", "template", f"{text}the tokenizer adds one. Remove one of them.")
        )
    return lines


def has_date(builder: PromptBuilder) -> bool:
    """Whether a prompt contains the template's current date."""
    clock = {"strftime_now": lambda form: A_DAY, **builder.template_kwargs}
    for messages in (turns(ASKED), [SYSTEM_TURN, *turns(ASKED)]):
        text = try_render(builder.tokenizer, messages, clock, opened=True)
        if text is not None:
            return A_DAY in text
    return False


def opening_line(opening: str, rewards: RewardsConfig) -> CheckLine:
    """The line about a prompt that begins the answer."""
    text = f"prompts begin the answer with {opening!r}"
    own = [term.function for term in rewards.terms if ":" in term.function]
    if own:
        text += (
            f"; {', '.join(own)} does not find that in the completion. A check of ours finds it in "
            "problem.prompt_opening"
        )
        return CheckLine("warn", "template", text)
    return CheckLine("ok", "template", f"{text}; checks receive it, and quoted attempts keep it")


def context_line(
    builder: PromptBuilder,
    layers: Sequence[LayerConfig],
    problems: Sequence[Problem],
    limits: Mapping[str, int | None],
) -> CheckLine:
    """Compare the longest sequence of any layer with the available context.

    Args:
        builder: with the run's tokenizer.
        layers: the chain.
        problems: whose prompts are measured.
        limits: tokens of a context, by the name of what sets it; None: it sets none.
    """
    measured = heapq.nlargest(MAX_MEASURED_PROMPTS, problems, key=lambda one: one.num_characters)
    lengths = measure_prompts(builder, layers, measured)
    totals = lengths.layer_lengths(layers)
    needed = max(totals)
    depth = totals.index(needed)
    layer = layers[depth]
    inner = needed - lengths.max_prompt_tokens - layer.max_completion_tokens
    text = (
        f"{needed:,} tokens at most, in layer {layer.name}: prompt {lengths.max_prompt_tokens} + "
        f"{f'attempt and guidance {inner} + ' if depth else ''}"
        f"completion {layer.max_completion_tokens}"
    )
    if len(measured) < len(problems):
        text += f" ({len(measured)} of {len(problems)} prompts measured)"
    known = {name: value for name, value in limits.items() if value is not None}
    name = min(known, key=lambda key: known[key], default="")
    if not name:
        return CheckLine("warn", "context", f"{text}; the model names no limit")
    if needed <= known[name]:
        return CheckLine("ok", "context", f"{text}; {name} holds {known[name]:,}")
    advice = f"Lower layers.{depth}.max_completion_tokens"
    if isinstance(layer, LaterLayer):
        if isinstance(layer.layout, SelfContinue):
            advice += f" or layers.{depth - 1}.max_completion_tokens"
        else:
            advice += f" or set layers.{depth}.layout.max_quote_tokens"
    advice += ", or data.max_prompt_tokens so that longer rows are left out"
    if name == "engines.max_model_len":
        advice += f", or raise engines.max_model_len to {needed}"
    return CheckLine(
        "fail",
        "context",
        f"{text}; {name} is {known[name]:,}, {needed - known[name]} too few. {advice}.",
    )


def token_lines(
    builder: PromptBuilder, layers: Sequence[LayerConfig], problem: Problem
) -> list[CheckLine]:
    """Check that each correction's prompt contains the attempt's token ids unchanged, in one
    piece."""
    lines = []
    prompt = builder.solve_prompt(layers[0], problem)
    attempt = builder.encode(SAMPLE_ATTEMPT)
    for layer in later_layers(layers):
        if not isinstance(layer.layout, SelfContinue):
            attempt = attempt[: layer.layout.max_quote_tokens]
        correction = builder.correction_prompt(
            layer,
            problem,
            parent_prompt_ids=prompt,
            parent_ids=attempt,
            guidance=guidance_text(layer, layer.guidance.phrases[0], has_feedback=True),
            feedback_ids=builder.feedback_ids(layer, SAMPLE_FEEDBACK),
        )
        if isinstance(layer.guidance, CheckGuidance):
            lines.append(feedback_line(builder, layer, correction))
        if isinstance(layer.layout, SelfContinue):
            is_exact = correction[: len(prompt) + len(attempt)] == [*prompt, *attempt]
            kind = "extend the attempt's sequence exactly"
        else:
            is_exact = contains(correction, attempt)
            kind = "hold the attempt's token ids unchanged"
        lines.append(
            CheckLine("ok", "tokens", f"prompts of layer {layer.name} {kind}")
            if is_exact
            else CheckLine("fail", "tokens", f"prompts of layer {layer.name} do not {kind}.")
        )
        prompt = correction
    return lines


def feedback_line(
    builder: PromptBuilder, layer: LaterLayer, correction: Sequence[int]
) -> CheckLine:
    """A correction's prompt with feedback, as the policy reads it."""
    shown = builder.tokenizer.decode(list(correction), skip_special_tokens=False)
    return CheckLine(
        "ok",
        "feedback",
        f"layer {layer.name} reads at most {layer.guidance.feedback_tokens} tokens of what the "
        f"check says of the attempt. A prompt of it: {shown!r}",
    )


def contains(ids: Sequence[int], piece: Sequence[int]) -> bool:
    size = len(piece)
    return any(list(ids[i : i + size]) == list(piece) for i in range(len(ids) - size + 1))
