"""A small preference model that gives every prefix of a completion a value.

WS-GRPO (https://arxiv.org/abs/2602.17025) trains such a model on right and wrong completions of
the same problem (`scorer_training`) and then asks it about neighbouring prefixes of one
completion: did adding this step help? Two kinds:

    mlp_on_embeddings   an MLP on the frozen policy's last hidden state at the last token
    reward_head         a linear head on the same state, the backbone trained with it

An MLP belongs to the base model whose states it was trained on, and that model is not saved
with it. The folder therefore keeps the value of a probe, and loading fails where the base model
at hand gives another. A reward head brings its backbone along. The form on disk:
`mgrpo.methods.ws_grpo.scorer_files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from learner.hub_weights import named_tensors
from learner.logprobs import PolicyModel
from learner.policy_loading import load_policy
from mgrpo.errors import ModelError
from mgrpo.methods.ws_grpo.hidden_states import hidden_states, hidden_states_in_batches
from mgrpo.methods.ws_grpo.scorer_files import (
    BACKBONE_DIR,
    HEAD_FILE,
    ScorerConfig,
    ScorerKind,
    read_scorer_config,
    write_scorer_config,
    write_whole,
)
from mgrpo.methods.ws_grpo.step_rewards import step_scores_from_values

PairOrder = Literal["shorter_longer", "longer_shorter"]

HIDDEN_UNITS = 512
BATCH_TOKENS = 16_384
"""Most tokens of one forward, padding included; a longer row goes alone."""
PROBE_TOLERANCE = {torch.float32: 1e-3}
COARSE_PROBE_TOLERANCE = 0.25
"""How far the probe's value may be off, as a share of 1 + its size; coarse for half precision."""
NUM_PROBE_TOKENS = 9

Row = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""A completion to be scored: prompt token ids, its own token ids, the ends of its steps."""


class PrefixScorer(nn.Module):
    """f(token ids) -> value; the larger, the likelier the text leads to a right answer."""

    def __init__(
        self,
        policy: PolicyModel,
        *,
        kind: ScorerKind,
        hidden_units: int = HIDDEN_UNITS,
        base_model: str,
        base_dir: str,
    ) -> None:
        """
        Args:
            policy: the base model.
            hidden_units: width of the MLP; without effect for a reward head.
            base_model: the base model's name as people know it, e.g. "default".
            base_dir: the folder it was loaded from.
        """
        super().__init__()
        self.kind, self.hidden_units = kind, hidden_units
        self.base_model, self.base_dir = base_model, base_dir
        self.policy = policy.requires_grad_(False)
        # Only what a value depends on: not the output layer, unless it is the embedding's twin.
        self.decoder.requires_grad_(kind == "reward_head")
        self.hidden_size: int = policy.causal_lm.get_input_embeddings().embedding_dim
        self.head = new_head(kind, self.hidden_size, hidden_units)

    @classmethod
    def create(
        cls,
        model_dir: str,
        *,
        kind: ScorerKind = "mlp_on_embeddings",
        hidden_units: int = HIDDEN_UNITS,
        base_model: str | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> PrefixScorer:
        """An untrained scorer on a causal language model's folder.

        Args:
            base_model: the model's name for people; None takes the folder.
            seed: of the head's first weights.
            dtype: of the base model; the head is float32.

        Raises:
            ModelError: the folder cannot be loaded.
        """
        policy = load_policy(model_dir, dtype=dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            scorer = cls(
                policy,
                kind=kind,
                hidden_units=hidden_units,
                base_model=base_model or model_dir,
                base_dir=str(Path(model_dir).resolve()),
            )
        return scorer.to(device).eval()

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        base_dir: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> PrefixScorer:
        """Read what `save` wrote, from safetensors only.

        Args:
            base_dir: where an MLP's base model lies; None takes the folder it was trained with.
                A reward head ignores it.
            dtype: of the base model; the head is float32.

        Raises:
            ModelError: no scorer is there, or its base model is missing or another one.
        """
        folder = Path(directory)
        config = read_scorer_config(folder)
        is_mlp = config.kind == "mlp_on_embeddings"
        source = Path(base_dir or config.base_dir) if is_mlp else folder / BACKBONE_DIR
        if not source.is_dir():
            raise ModelError(
                f"The prefix scorer {folder} needs the model {config.base_model}, and {source} "
                "does not exist. Make it available, or train a scorer on another: "
                "mgrpo scorer train."
            )
        scorer = cls(
            load_policy(str(source), dtype=dtype),
            kind=config.kind,
            hidden_units=config.hidden_units,
            base_model=config.base_model,
            base_dir=str(source.resolve()),
        )
        try:
            scorer.head.load_state_dict(load_file(folder / HEAD_FILE))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"{folder / HEAD_FILE} cannot be used with the model in {source}, whose hidden "
                f"size is {scorer.hidden_size}: {error}"
            ) from error
        scorer = scorer.to(device).eval()
        scorer.check_probe(config.probe_value, dtype, where=folder)
        return scorer

    def save(self, directory: str | Path) -> None:
        """Write a folder that `load` reads: whole or not at all.

        Raises:
            RunDirectoryError: something is there already, or the disk refused.
        """
        write_whole(Path(directory), self.write_to)

    def write_to(self, folder: Path) -> None:
        head = {name: tensor.cpu().contiguous() for name, tensor in self.head.state_dict().items()}
        save_file(head, folder / HEAD_FILE)
        if self.kind == "reward_head":
            model = self.policy.causal_lm
            weights = {name: one.detach().cpu() for name, one in named_tensors(model)}
            model.save_pretrained(folder / BACKBONE_DIR, state_dict=weights)
        write_scorer_config(
            folder,
            ScorerConfig(
                kind=self.kind,
                base_model=self.base_model,
                base_dir=self.base_dir,
                hidden_size=self.hidden_size,
                hidden_units=self.hidden_units,
                probe_value=self.probe_value(),
            ),
        )

    # --- values ---

    @property
    def decoder(self) -> Any:
        """The base model below its output layer."""
        return self.policy.decoder

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    def forward(
        self, sequences: Sequence[Sequence[int]], places: Sequence[Sequence[int]] | None = None
    ) -> Tensor:
        """Values with gradient where parameters have one, in one forward.

        Args:
            sequences: token ids, none empty.
            places: per sequence [k], indices of the last tokens of prefixes. None takes each
                sequence whole.

        Returns:
            Float32 values of all prefixes in a row: [n] of n whole sequences.
        """
        if places is None:
            places = [[len(sequence) - 1] for sequence in sequences]
        states = hidden_states(self.decoder, sequences, places, device=self.device)
        return self.value_of(torch.cat(states))

    def value_of(self, states: Tensor) -> Tensor:
        """[n] float32 values of [n, D] hidden states."""
        values: Tensor = self.head(states.float())
        return values[:, 0]

    def states_at(
        self, sequences: Sequence[Sequence[int]], places: Sequence[Sequence[int]], batch_tokens: int
    ) -> list[Tensor]:
        """Per sequence [k, D] states at its `places`, without gradient."""
        return hidden_states_in_batches(
            self.decoder, sequences, places, device=self.device, batch_tokens=batch_tokens
        )

    @torch.no_grad()
    def values(
        self, sequences: Sequence[Sequence[int]], *, batch_tokens: int = BATCH_TOKENS
    ) -> Tensor:
        """[n] float32 values on the CPU, without gradient, of any number of sequences."""
        if not sequences:
            return torch.empty(0)
        last = [[len(sequence) - 1] for sequence in sequences]
        states = self.states_at(sequences, last, batch_tokens)
        return self.value_of(torch.cat(states)).cpu()

    def step_scores(
        self,
        prompt_ids: Sequence[int],
        token_ids: Sequence[int],
        step_ends: Sequence[int],
        *,
        pair_order: PairOrder = "shorter_longer",
    ) -> Tensor:
        """[steps] scores of one completion's steps; see `step_scores_of`."""
        return self.step_scores_of([(prompt_ids, token_ids, step_ends)], pair_order=pair_order)[0]

    @torch.no_grad()
    def step_scores_of(
        self,
        rows: Sequence[Row],
        *,
        pair_order: PairOrder = "shorter_longer",
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[Tensor]:
        """The gain of each step of each completion; a completion goes forward once.

        Prefix t is the prompt and the first t steps; prefix 0 is the prompt alone.

        Args:
            rows: (prompt ids, completion ids, step ends) of each completion. A step's end is how
                many of the completion's tokens the prefix through that step holds.
            pair_order: which prefix the score is a preference for. Descriptions of WS-GRPO
                disagree. shorter_longer: sigmoid(f(prefix t) - f(prefix t-1)), the probability
                that adding step t helped. longer_shorter: 1 minus that, so that a step is paid
                for where the text was better without it.
            batch_tokens: most tokens of one forward, padding included; a longer row goes alone.

        Returns:
            Per completion [steps] float32 on the CPU; 0.5 for a step without tokens.

        Raises:
            ValueError: an empty prompt, or step ends that fall or lie outside the completion.
        """
        sequences, places = [], []
        for prompt_ids, token_ids, step_ends in rows:
            check_step_ends(prompt_ids, token_ids, step_ends)
            sequences.append([*prompt_ids, *token_ids])
            places.append([len(prompt_ids) + end - 1 for end in (0, *step_ends)])
        states = self.states_at(sequences, places, batch_tokens)
        is_later_preferred = pair_order == "shorter_longer"
        return [
            step_scores_from_values(self.value_of(one).cpu(), is_later_preferred=is_later_preferred)
            for one in states
        ]

    # --- the probe ---

    def probe_value(self) -> float:
        """The value of a fixed text: tokens from all over the vocabulary."""
        vocab_size = self.policy.causal_lm.get_input_embeddings().num_embeddings
        step = max(vocab_size // NUM_PROBE_TOKENS, 1)
        tokens = [index * step % vocab_size for index in range(NUM_PROBE_TOKENS)]
        return float(self.values([tokens])[0])

    def check_probe(self, expected: float, dtype: torch.dtype, *, where: Path) -> None:
        """Raise ModelError where the base model is not the one that the head was trained on."""
        found = self.probe_value()
        tolerance = PROBE_TOLERANCE.get(dtype, COARSE_PROBE_TOLERANCE)
        if not abs(found - expected) <= tolerance * (1 + abs(expected)):
            raise ModelError(
                f"The prefix scorer {where} gives its probe the value {found:.4g} with the model "
                f"in {self.base_dir}, and gave it {expected:.4g} when it was saved: it was trained "
                f"on other weights of {self.base_model}. Name those, or train the scorer again: "
                "mgrpo scorer train."
            )


def new_head(kind: ScorerKind, hidden_size: int, hidden_units: int) -> nn.Sequential:
    """[n, D] states -> [n, 1] values, float32."""
    if kind == "reward_head":
        return nn.Sequential(nn.Linear(hidden_size, 1))
    # Hidden states differ in scale from model to model; the MLP sees them at scale 1.
    return nn.Sequential(
        nn.LayerNorm(hidden_size, elementwise_affine=False),
        nn.Linear(hidden_size, hidden_units),
        nn.GELU(),
        nn.Linear(hidden_units, 1),
    )


def check_step_ends(
    prompt_ids: Sequence[int], token_ids: Sequence[int], step_ends: Sequence[int]
) -> None:
    """Raise ValueError where the prefixes do not grow from the prompt to the completion."""
    if len(prompt_ids) == 0:
        raise ValueError("a prompt without tokens has no value to compare the first step with")
    ends = [0, *step_ends, len(token_ids)]
    if any(later < earlier for earlier, later in pairwise(ends)):
        raise ValueError(f"step ends {list(step_ends)} do not rise within 0..{len(token_ids)}")
