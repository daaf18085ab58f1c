"""A recipe from a TRL GRPO script, which is read and never run.

What is written as a constant is understood: the keywords of GRPOConfig and GRPOTrainer, the data
set's name, the model's. Reward functions are copied out of the script with what they use, since
importing the script would start its training. All else becomes a comment.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgrpo.config.yaml_core import dump_yaml
from mgrpo.errors import DataError
from mgrpo.records.json_object import JsonObject

KEYS = {
    "learning_rate": "learner.learning_rate",
    "warmup_steps": "learner.warmup_steps",
    "max_grad_norm": "learner.max_grad_norm",
    "weight_decay": "learner.weight_decay",
    "gradient_checkpointing": "learner.gradient_checkpointing",
    "max_steps": "steps",
    "seed": "seed",
    "num_generations": "layers.0.group_size",
    "max_completion_length": "layers.0.max_completion_tokens",
    "max_prompt_length": "data.max_prompt_tokens",
    "temperature": "sampling.temperature",
    "beta": "objective.kl.weight",
    "epsilon_high": "objective.loss.clip_high",
    "save_steps": "checkpoints.every_steps",
    "save_total_limit": "checkpoints.keep",
    "eval_steps": "evaluation.every_steps",
    "vllm_gpu_memory_utilization": "engines.gpu_memory_utilization",
    "vllm_tensor_parallel_size": "engines.tensor_parallel_size",
    "chat_template_kwargs": "model.chat_template_kwargs",
}
"""Keywords of GRPOConfig whose value is that of a key here."""
AGGREGATIONS = {
    "grpo": "seq_mean",
    "bnpo": "token_mean",
    "dapo": "token_mean",
    "dr_grpo": "fixed_length",
}
NOT_NEEDED = {
    *("output_dir", "run_name", "logging_steps", "log_completions", "num_completions_to_print"),
    *("use_vllm", "vllm_mode", "vllm_server_host", "vllm_server_port", "bf16", "fp16", "tf32"),
    *("remove_unused_columns", "per_device_eval_batch_size", "num_generations_eval"),
    *("save_strategy", "eval_strategy", "logging_strategy", "dataloader_num_workers", "do_train"),
    *("logging_first_step", "model_init_kwargs", "gradient_checkpointing_kwargs", "deepspeed"),
    *("ddp_find_unused_parameters", "disable_dropout", "vllm_enable_sleep_mode"),
}
"""Keywords that have nothing to say here: the recipe's own keys do that."""
BATCH = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_generations": 8,
}
"""Keywords that give TRL's number of prompts in a step, with TRL's defaults."""
REWARD_ARGUMENTS = {"prompts", "completions", "completion_ids", "trainer_state", "self"}
SCHEDULES = ("constant", "linear", "cosine")
UNKNOWN = object()


@dataclass
class Script:
    """What a script says in constants."""

    file: Path
    tree: ast.Module
    source: str
    constants: JsonObject = field(default_factory=dict)
    values: dict[str, ast.expr] = field(default_factory=dict)  # by name, the last that it is given

    @classmethod
    def read(cls, file: Path) -> Script:
        """
        Raises:
            DataError: it cannot be read, or is no Python.
        """
        try:
            source = file.read_text(encoding="utf-8")
            script = cls(file, ast.parse(source), source)
        except (OSError, UnicodeDecodeError, SyntaxError, ValueError) as error:
            raise DataError(f"{file} cannot be read as Python: {error}.") from error
        for node in ast.walk(script.tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        script.values[target.id] = node.value
        return script

    def constant(self, node: ast.expr | None) -> Any:
        """A literal's value, also by way of a name; UNKNOWN if it is not one."""
        if isinstance(node, ast.Name) and node.id in self.values:
            node = self.values[node.id]
        try:
            return ast.literal_eval(node) if node is not None else UNKNOWN
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return UNKNOWN

    def calls(self, name: str, within: ast.AST | None = None) -> Iterator[ast.Call]:
        for node in ast.walk(within or self.tree):
            if isinstance(node, ast.Call) and called(node) == name:
                yield node

    def function(self, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        found = [
            node
            for node in self.tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        ]
        return found[-1] if found else None

    def text(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.source, node) or ast.unparse(node)


def called(call: ast.Call) -> str:
    """The last name of what is called: `trl.GRPOConfig(...)` is GRPOConfig."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def files_from_trl(name: str, file: Path) -> dict[str, str]:
    """The recipe, and the reward functions, by file name.

    Raises:
        DataError: it is no script with a GRPOTrainer.
    """
    script = Script.read(file)
    trainer = next(script.calls("GRPOTrainer"), None)
    if trainer is None:
        raise DataError(f"{file} has no call of GRPOTrainer, so there is nothing to translate.")
    settings = next(script.calls("GRPOConfig"), None)
    given = {one.arg: one.value for one in trainer.keywords if one.arg}
    places = ("model", "reward_funcs", "args", "train_dataset")
    for key, value in zip(places, trainer.args, strict=False):
        given.setdefault(key, value)
    notes: list[str] = []
    tree: JsonObject = {
        "name": name,
        "description": f"translated from {file.name}",
        "method": "GRPO",
        "steps": 100,
        "prompts_per_step": 1,
        "model": {"path": model_of(script, given.get("model"), notes)},
        "data": {},
        "rewards": {},
        "layers": [{"name": "solve", "group_size": 8, "system_prompt": ""}],
    }
    if settings is not None:
        translate_settings(script, settings, tree, notes)
    functions = rewards_of(script, given.get("reward_funcs"), notes)
    columns = columns_of(script, functions)
    tree["data"] = {
        "train": data_of(script, given.get("train_dataset"), columns, notes),
        **tree["data"],
    }
    if "eval_dataset" in given:
        heldout = data_of(script, given["eval_dataset"], columns, notes)
        tree["data"]["heldout"] = heldout
    rewards_file = f"{name}_rewards.py"
    tree["rewards"]["terms"] = terms_of(script, functions, settings, rewards_file, notes)
    for key in ("peft_config", "callbacks", "rollout_func", "tools"):
        if key in given:
            why = "there is no LoRA, all weights train" if key == "peft_config" else "no such thing"
            notes.append(f"{key}={script.text(given[key])} (line {given[key].lineno}): {why}")
    copied = copied_functions(script, [one for one in functions if script.function(one)])
    files = {f"{name}.yaml": heading(name, file, notes) + dump_yaml(tree)}
    return files | ({rewards_file: copied} if copied else {})


def heading(name: str, file: Path, notes: Sequence[str]) -> str:
    lines = [
        "# yaml-language-server: $schema=mgrpo.schema.json",
        f"# Translated from {file.name} by `mgrpo init {name} --from trl`, which has read it",
        "# and not run it.",
        "# A second layer, `- {name: correct, group_size: 4}`, would train corrections too.",
    ]
    if notes:
        lines += ["#", "# Not translated, or to be looked at:"]
        lines += [f"#   {line}" for note in notes for line in note.splitlines()]
    return "\n".join(lines) + "\n"


def model_of(script: Script, node: ast.expr | None, notes: list[str]) -> str:
    found = script.constant(node)
    if isinstance(found, str):
        return found
    value = script.values.get(node.id) if isinstance(node, ast.Name) else node
    for call in script.calls("from_pretrained", within=value) if value is not None else ():
        loaded = script.constant(call.args[0]) if call.args else UNKNOWN
        if isinstance(loaded, str):
            return loaded
    notes.append("model.path: the script does not name its model by a constant; set it")
    return "default"


def translate_settings(script: Script, call: ast.Call, tree: JsonObject, notes: list[str]) -> None:
    """The keywords of GRPOConfig as keys of the recipe."""
    found = {one.arg: script.constant(one.value) for one in call.keywords if one.arg}
    for word in call.keywords:
        key, value = word.arg, found.get(word.arg or "", UNKNOWN)
        where = f"{script.text(word.value)} (line {word.lineno})"
        if key is None:
            notes.append(f"GRPOConfig(**{where}): unknown keywords")
        elif value is UNKNOWN and key not in NOT_NEEDED:
            notes.append(f"{key}={where}: not a constant")
        elif key in KEYS and value is not None and not (key == "max_steps" and value <= 0):
            put(tree, KEYS[key], value)
        elif key not in NOT_NEEDED and not translate_one(key, value, tree) and key not in BATCH:
            notes.append(f"{key}={where}: not translated")
    sizes = {key: found.get(key, default) for key, default in BATCH.items()}
    if all(isinstance(size, int) for size in sizes.values()):
        completions = sizes["per_device_train_batch_size"] * sizes["gradient_accumulation_steps"]
        tree["prompts_per_step"] = max(1, completions // sizes["num_generations"])
        notes.append(
            "prompts_per_step is that of TRL on one GPU (batch size x accumulation / "
            "num_generations); on N GPUs it is N times as many"
        )
    if "max_steps" not in found or found["max_steps"] in (UNKNOWN, -1):
        epochs = found.get("num_train_epochs", 3)
        notes.append(f"steps: TRL takes {epochs} epochs, one of rows / prompts_per_step steps")


def translate_one(key: str, value: Any, tree: JsonObject) -> bool:
    """A keyword whose value means something else here; False: it is none of these."""
    if key == "epsilon":
        put(tree, "objective.loss.clip_low", value)
        tree["objective"]["loss"].setdefault("clip_high", value)
    elif key == "lr_scheduler_type" and value in SCHEDULES:
        put(tree, "learner.schedule", value)
    elif key == "loss_type" and value in AGGREGATIONS:
        tree["layers"][0]["aggregation"] = AGGREGATIONS[value]
    elif key == "scale_rewards" and value in (True, False, "group", "none"):
        scaled = value in (True, "group")
        tree["layers"][0]["advantage"] = {"type": "group_z", "scale_by_std": scaled}
    elif key in ("adam_beta1", "adam_beta2"):
        betas = tree.setdefault("learner", {}).setdefault("betas", [0.9, 0.999])
        betas[int(key[-1]) - 1] = value
    elif key == "report_to":
        known = [value] if isinstance(value, str) else list(value)
        trackers = [one for one in known if one in ("wandb", "tensorboard", "mlflow", "trackio")]
        put(tree, "output.trackers", trackers)
    elif key == "generation_kwargs" and isinstance(value, Mapping) and set(value) <= {"stop"}:
        tree["layers"][0]["stop"] = value["stop"]
    else:
        return key == "reward_weights"  # `terms_of` has them
    return True


def put(tree: JsonObject, path: str, value: Any) -> None:
    """Set a dotted key; the only list on a path is that of the layers."""
    *sections, last = path.split(".")
    node: Any = tree
    for section in sections:
        node = node[int(section)] if isinstance(node, list) else node.setdefault(section, {})
    node[last] = value


def data_of(
    script: Script, node: ast.expr | None, columns: Sequence[str], notes: list[str]
) -> JsonObject:
    """The section of a data set that the script loads by name.

    Args:
        columns: that the reward functions take; the first holds the reference answer.
    """
    value = script.values.get(node.id, node) if isinstance(node, ast.Name) else node
    section: JsonObject = {"path": "data.jsonl", "question_field": "prompt"}
    call = find_load(script, value, set())
    name = script.constant(call.args[0]) if call is not None and call.args else UNKNOWN
    if call is None or not isinstance(name, str):
        notes.append("data: the script does not load a data set by a constant name; set data.path")
    else:
        words = {one.arg: script.constant(one.value) for one in call.keywords if one.arg}
        subset = script.constant(call.args[1]) if len(call.args) > 1 else words.get("name")
        files = words.get("data_files")
        if name in ("json", "csv", "parquet") and isinstance(files, str):
            section["path"] = files
        else:
            split = words.get("split")
            section["path"] = name
            section |= {"subset": subset} if isinstance(subset, str) else {}
            section |= {"split": split} if isinstance(split, str) else {}
    if columns:
        section["answer_field"] = columns[0]
        section |= {"metadata_fields": list(columns[1:])} if columns[1:] else {}
    changed = [
        f"{called(one)} (line {one.lineno})"
        for name in ("map", "filter", "rename_column", "select", "shuffle")
        for one in script.calls(name)
    ]
    if changed:
        notes.append(
            f"data: the script changes its data by {', '.join(changed)}; name the columns of the "
            "set as it is, or write the changed one to a file (to_json) and name that"
        )
    return section


def find_load(script: Script, value: ast.AST | None, seen: set[str]) -> ast.Call | None:
    """The call of load_dataset that a value comes from, also by way of names."""
    if value is None:
        return None
    if (call := next(script.calls("load_dataset", within=value), None)) is not None:
        return call
    for node in ast.walk(value):
        if isinstance(node, ast.Name) and node.id in script.values and node.id not in seen:
            seen.add(node.id)
            if (call := find_load(script, script.values[node.id], seen)) is not None:
                return call
    return next(script.calls("load_dataset"), None)


def rewards_of(script: Script, node: ast.expr | None, notes: list[str]) -> list[str]:
    """The names of the reward functions, in their order."""
    if isinstance(node, ast.Name) and script.function(node.id) is None:
        node = script.values.get(node.id, node)
    entries = node.elts if isinstance(node, ast.List | ast.Tuple) else [node] if node else []
    names = []
    for entry in entries:
        if isinstance(entry, ast.Name):
            names.append(entry.id)
        else:
            notes.append(
                f"reward {script.text(entry)} (line {entry.lineno}): not a function's name"
            )
    return names


def columns_of(script: Script, functions: Sequence[str]) -> list[str]:
    """The data's columns that reward functions take, without doubles."""
    found = [script.function(name) for name in functions]
    names = [
        argument.arg
        for one in found
        if one is not None
        for argument in [*one.args.args, *one.args.kwonlyargs]
    ]
    return list(dict.fromkeys(name for name in names if name not in REWARD_ARGUMENTS))


def terms_of(
    script: Script,
    functions: Sequence[str],
    settings: ast.Call | None,
    rewards_file: str,
    notes: list[str],
) -> list[JsonObject]:
    words = settings.keywords if settings is not None else []
    weights = next(
        (script.constant(one.value) for one in words if one.arg == "reward_weights"), None
    )
    imported = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in ast.walk(script.tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    terms: list[JsonObject] = []
    for place, name in enumerate(functions):
        if script.function(name) is not None:
            term: JsonObject = {"trl": f"./{rewards_file}:{name}"}
        elif name in imported:
            term = {"trl": imported[name]}
        else:
            notes.append(f"reward {name}: not defined in the script, and not imported by name")
            continue
        if isinstance(weights, list) and place < len(weights):
            term["weight"] = weights[place]
        terms.append(term)
    if not terms:
        notes.append("rewards.terms: none was understood; math_answer stands in their place")
        return [{"check": "math_answer"}]
    terms[0]["correct_at"] = 1.0
    notes.append("rewards.terms.0.correct_at: from which value of it on a completion is right")
    return terms


def copied_functions(script: Script, names: Sequence[str]) -> str:
    """The functions with the imports, constants and functions of the script that they use; ""
    without any."""
    if not names:
        return ""
    defined: dict[str, ast.stmt] = {}
    for node in script.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                defined[alias.asname or alias.name.partition(".")[0]] = node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    defined[target.id] = node
    used: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in used or name not in defined:
            continue
        used.add(name)
        waiting += [one.id for one in ast.walk(defined[name]) if isinstance(one, ast.Name)]
    kept = list(dict.fromkeys(defined[name] for name in defined if name in used))
    kept.sort(key=lambda node: node.lineno)
    head = f'"""The reward functions of {script.file.name}, with what they use of it."""\n\n'
    return head + "\n\n".join(whole_text(script, node) for node in kept) + "\n"


def whole_text(script: Script, node: ast.stmt) -> str:
    """A statement as it is written, its decorators included."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(one.lineno for one in decorators)])
    return "\n".join(script.source.splitlines()[first - 1 : node.end_lineno])
