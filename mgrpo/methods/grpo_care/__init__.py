PLUGINS = {
    "answer_span": "answer_span:AnswerSpan",
    "grpo_care": "plugin:GrpoCare",
}
