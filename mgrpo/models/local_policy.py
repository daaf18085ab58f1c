"""A policy in this process, by transformers: starts in seconds and answers one prompt at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mgrpo.errors import ModelError
from mgrpo.models.turns import Asked


class LocalPolicy:
    """
    Args:
        folder: the policy, in Hugging Face form.
        stop_ids: tokens that end a completion.
        temperature: 0: greedy.
        seed: of the sampling.

    Raises:
        ModelError: transformers cannot load it.
    """

    def __init__(
        self, folder: Path, stop_ids: tuple[int, ...], *, temperature: float, seed: int
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.stop_ids, self.temperature = stop_ids, temperature
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype="auto", trust_remote_code=False
            )
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"The policy {folder} cannot be loaded: {reason}") from error
        self.model = model.to(device).eval()
        torch.manual_seed(seed)

    def write(self, asked: Asked) -> list[int]:
        """The completion's token ids, with what ended it."""
        import torch
        from transformers import GenerationConfig

        stop_tokens = asked.stop.tokens if asked.stop else []
        sampling: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            # Of the whole distribution, as training samples, whatever generation_config.json says.
            sampling = {"do_sample": True, "temperature": self.temperature, "top_k": 0}
        ends = [*self.stop_ids, *stop_tokens]
        settings = GenerationConfig(
            max_new_tokens=asked.layer.max_completion_tokens,
            eos_token_id=ends,
            pad_token_id=ends[0],
            stop_strings=(asked.stop.texts or None) if asked.stop else None,
            **sampling,
        )
        prompt = torch.tensor([asked.prompt_ids], device=self.model.device)
        with torch.inference_mode():
            written = self.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=settings,
                tokenizer=self.tokenizer,
            )
        ids: list[int] = written[0, prompt.shape[1] :].tolist()
        return ids
