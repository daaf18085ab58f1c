"""The default policy's tokenizer: small, byte-level, every digit a token of its own.

Any text encodes, since all 256 bytes are in the vocabulary. Sentences that every prompt
repeats (the questions' preambles, the guidance phrases, the system prompts) are single
tokens, which makes prompts three times shorter: a laptop's minutes go into completions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mgrpo.config.guidance import GUIDANCE_PHRASES
from mgrpo.config.layers import REVIEW_SYSTEM_PROMPT, SOLVE_SYSTEM_PROMPT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 512
PAD, TURN_START, TURN_END = "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (PAD, TURN_START, TURN_END)
MAX_LENGTH = 1024

SHORT_REVIEW_SYSTEM_PROMPT = "Check the attempt."
"""Layer 2's system prompt in the recipes for the default policy."""

FIXED_SENTENCES = (
    "State the final answer to the following arithmetic problem:",
    "Your task is to count how many legs there are in total when given a list of animals.",
    "Now, how many legs are there in total if you have",
    *GUIDANCE_PHRASES,
    SOLVE_SYSTEM_PROMPT,
    REVIEW_SYSTEM_PROMPT,
    SHORT_REVIEW_SYSTEM_PROMPT,
)

# Content goes in verbatim and every role is allowed anywhere, so a prompt is exactly the sum
# of its parts: two assistant turns in a row are how a correction follows its attempt.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Pieces that no merge crosses: the answer's opening, one digit, a word with its space, a line
# break, a run of other signs or of spaces.
PIECES = r"\\boxed\{|\d| ?\p{L}+|\n| ?[^\s\p{L}\d\\]+|\\|\s"


def train_tokenizer(
    texts: Iterable[str], sentences: Sequence[str] = FIXED_SENTENCES
) -> PreTrainedTokenizerFast:
    """Learn the merges from `texts`; the same texts in the same order give the same tokenizer.

    Args:
        texts: questions and work, without the sentences.
        sentences: what is a token of its own.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(sentences),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in sentences])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=TURN_END,
        additional_special_tokens=[TURN_START],
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
