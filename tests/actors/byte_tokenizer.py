"""A tokenizer whose tokens are bytes: enough of the interface to build prompts."""

from __future__ import annotations

END = 256


class ByteTokenizer:
    def __init__(self) -> None:
        self.all_special_ids = [END]
        self.eos_token_id: int | None = END

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        ids: list[int] = []
        for index, piece in enumerate(text.split("<end>")):
            ids += [END] if index else []
            ids += piece.encode()
        return ids

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        end = "" if skip_special_tokens else "<end>"
        return "".join(end if token == END else chr(token) for token in token_ids)

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        **template_kwargs: object,
    ) -> str:
        turns = "".join(f"{turn['role']}: {turn['content']}<end>\n" for turn in conversation)
        return turns + "assistant: " * add_generation_prompt
