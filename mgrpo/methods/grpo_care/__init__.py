"""GRPO-CARE (arXiv 2506.16141)."""

PLUGINS = {
    "answer_span": "answer_span:AnswerSpan",
    "grpo_care": "plugin:GrpoCare",
}
