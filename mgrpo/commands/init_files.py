"""The files that `mgrpo init` writes."""

from __future__ import annotations

SCHEMA_FILE = "mgrpo.schema.json"

RECIPE = """\
# yaml-language-server: $schema=mgrpo.schema.json
#
#   mgrpo check {name} --sample   errors, prompts as the model reads them, some graded completions
#   mgrpo train {name}            trains, or resumes; all files are in runs/{name}/
#   mgrpo train {name} steps=50 layers.solve.group_size=16 --run longer
#   mgrpo eval {name}             accuracy of the trained policy
#
# What is not written here has a default. Editors show every key by the schema in the first line.
name: {name}
description: {description}
method: MGRPO              # a label for reports
steps: 20                  # each samples, scores and trains once
prompts_per_step: 8        # problems of a step

model:
  path: {model}            # "default" has 0.9M parameters, to try things on a CPU; else a folder
                           # or a name of the hub, such as Qwen/Qwen2.5-1.5B-Instruct
  dtype: {dtype}           # bfloat16 on GPUs

data:
  train:                   # JSON Lines, JSON, CSV or Parquet; dots lead into nested columns
    path: {path}
    question_field: {question}
    answer_field: {answer}
{heldout}\
  max_prompt_tokens: {max_prompt_tokens}    # longer rows are left out and counted

rewards:
  terms:                   # added up by weight; the first one says what is right
    - check: {check}   # {check_comment}
    # - {{check: format, weight: 0.1}}
  deadline_s: 10           # for one completion; raise it for slow checks

layers:
  - name: solve            # first attempts
    group_size: 8          # completions per problem; rewards are compared within a group
    max_completion_tokens: {max_completion_tokens}
    system_prompt: {solve_prompt}
    # stop: ["\\nQ:"]      # texts that end a completion, beside the end of its turn
  - name: correct          # corrections of each attempt; without this layer it is plain GRPO
    group_size: 4          # corrections per attempt
    max_completion_tokens: {max_completion_tokens}
    system_prompt: {correct_prompt}

sampling:
  temperature: 1.0

learner:
  learning_rate: {learning_rate}    # a small policy takes more: 1e-6 is usual from 1B parameters on
  warmup_steps: 3
  schedule: cosine

engines:
  gpu_memory_utilization: 0.5

evaluation:
  every_steps: 10          # of the held-out problems; also before and after training
  max_problems: 200

cluster:
  colocate: auto           # engines and learner share GPUs where there are too few
"""

HELDOUT = """\
  heldout:                 # never trained on: accuracy before and after
    path: {path}
    question_field: {question}
    answer_field: {answer}
"""
NO_HELDOUT = """\
  # heldout:               # never trained on: accuracy before and after
  #   path: heldout.jsonl  # other rows than those of train
  #   question_field: {question}
  #   answer_field: {answer}
"""

SIGNATURE = '''\
"""The reward: called with each completion and its problem, in processes with a deadline.

`problem` has question, answer and metadata. Return a bool, a number (1 or more is right), or a
`mgrpo.types.Reward`, which may say why. An exception or a timeout is a failed check: its
completion does not train.
"""

import re


'''
EXAMPLE_REWARD = f'''\
{SIGNATURE}def exact(completion, problem):
    """Right if the last number is the reference answer."""
    numbers = re.findall(r"-?\\d+(?:\\.\\d+)?", completion)
    return bool(numbers) and float(numbers[-1]) == float(problem.answer)
'''
TEXT_REWARD = f'''\
{SIGNATURE}def exact(completion, problem):
    """Right if the last line ends with the reference answer, whatever its case and punctuation."""
    lines = completion.strip().splitlines()
    return bool(lines) and words(lines[-1])[-len(words(problem.answer)) :] == words(problem.answer)


def words(text):
    return re.findall(r"\\w+", text.casefold()) or [text]
'''


def heldout_lines(path: str, question: str, answer: str) -> str:
    """The section data.heldout; a comment without a file."""
    form = HELDOUT if path else NO_HELDOUT
    return form.format(path=path, question=question, answer=answer)
