"""`mgrpo init --from trl`: what is read from a script, which is never run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mgrpo.cli import main
from mgrpo.commands.init_from_trl import files_from_trl
from mgrpo.config.load import load_recipe
from mgrpo.config.yaml_core import parse_yaml
from mgrpo.errors import DataError

SCRIPT = """
import re
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import think_format_reward

raise SystemExit("this script must not run")

MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
BOX = re.compile(r"boxed{(.*)}")
unused = 3

def last_box(text):
    found = BOX.findall(text)
    return found[-1] if found else None

def accuracy_reward(completions, ground_truth, difficulty=None, **kwargs):
    return [float(last_box(c[0]["content"]) == g) for c, g in zip(completions, ground_truth)]

dataset = load_dataset("openai/gsm8k", "main", split="train")
dataset = dataset.map(lambda row: {"prompt": row["question"]})
args = GRPOConfig(
    output_dir="out",
    learning_rate=1e-6,
    per_device_train_batch_size=16,
    gradient_accumulation_steps=2,
    num_generations=8,
    max_completion_length=256,
    beta=0.04,
    epsilon=0.2,
    epsilon_high=0.28,
    loss_type="dapo",
    scale_rewards=False,
    lr_scheduler_type="cosine",
    adam_beta2=0.99,
    reward_weights=[1.0, 0.2],
    report_to=["wandb"],
    generation_kwargs={"stop": ["</answer>"]},
    num_iterations=2,
    warmup_ratio=compute(),
    bf16=True,
)
trainer = GRPOTrainer(
    model=MODEL,
    args=args,
    reward_funcs=[accuracy_reward, think_format_reward, lambda completions, **kw: [0.0]],
    train_dataset=dataset,
    peft_config=LoraConfig(r=8),
)
trainer.train()
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "train.py").write_text(SCRIPT)
    return files_from_trl("mine", tmp_path / "train.py")


def test_constants_become_keys(files: dict[str, str]) -> None:
    tree = parse_yaml(files["mine.yaml"])
    assert tree["model"] == {"path": "Qwen/Qwen2.5-0.5B-Instruct"}
    assert tree["prompts_per_step"] == 16 * 2 // 8
    assert tree["learner"] == {
        "learning_rate": 1e-6,
        "schedule": "cosine",
        "betas": [0.9, 0.99],
    }
    assert tree["objective"] == {
        "kl": {"weight": 0.04},
        "loss": {"clip_low": 0.2, "clip_high": 0.28},
    }
    (layer,) = tree["layers"]
    assert (layer["group_size"], layer["max_completion_tokens"]) == (8, 256)
    assert layer["aggregation"] == "token_mean"
    assert layer["advantage"] == {"type": "group_z", "scale_by_std": False}
    assert layer["stop"] == ["</answer>"]
    assert tree["output"]["trackers"] == ["wandb"]


def test_what_is_written_is_a_recipe(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(files["mine.yaml"])
    config = load_recipe(tmp_path / "mine.yaml")
    assert (config.steps, config.layers[0].stop.texts) == (100, ["</answer>"])


def test_the_data_set_is_found_by_way_of_names(files: dict[str, str]) -> None:
    train = parse_yaml(files["mine.yaml"])["data"]["train"]
    assert train["path"] == "openai/gsm8k"
    assert (train["subset"], train["split"]) == ("main", "train")
    assert (train["question_field"], train["answer_field"]) == ("prompt", "ground_truth")
    assert train["metadata_fields"] == ["difficulty"]


def test_rewards_are_copied_with_what_they_use(files: dict[str, str]) -> None:
    assert parse_yaml(files["mine.yaml"])["rewards"]["terms"] == [
        {"trl": "./mine_rewards.py:accuracy_reward", "weight": 1.0, "correct_at": 1.0},
        {"trl": "trl.rewards:think_format_reward", "weight": 0.2},
    ]
    space: dict[str, object] = {}
    exec(compile(files["mine_rewards.py"], "mine_rewards.py", "exec"), space)
    assert space["accuracy_reward"]([[{"content": "\\boxed{7}"}]], ["7"]) == [1.0]
    assert "unused" not in space and "load_dataset" not in space and "SystemExit" not in files


@pytest.mark.parametrize(
    "note",
    [
        "num_iterations=2: not translated",
        "warmup_ratio=compute(): not a constant",
        "reward lambda completions, **kw: [0.0]: not a function's name",
        "peft_config=LoraConfig(r=8): there is no LoRA",
        "the script changes its data by map",
        "steps: TRL takes 3 epochs",
    ],
)
def test_what_is_not_understood_is_a_comment(files: dict[str, str], note: str) -> None:
    comments = " ".join(
        line.lstrip("# ") for line in files["mine.yaml"].splitlines() if line.startswith("#")
    )
    assert note in re.sub(r" \(line \d+\)", "", comments)
    assert f"(line {1 + SCRIPT[: SCRIPT.index('num_iterations')].count(chr(10))})" in comments


def test_a_script_without_a_trainer_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.py").write_text("print('hello')\n")
    assert main(["init", "mine", "--from", "trl", "other.py"]) == 2
    assert "no call of GRPOTrainer" in capsys.readouterr().err
    assert main(["init", "mine", "--from", "verl", "other.py"]) == 2
    assert "only scripts of trl" in capsys.readouterr().err
    Path("broken.py").write_text("def (\n")
    with pytest.raises(DataError, match="cannot be read as Python"):
        files_from_trl("mine", Path("broken.py"))
