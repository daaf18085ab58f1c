PLUGINS = {
    "reflection_span": "reflection_span:ReflectionSpan",
    "span_credit": "span_credit:SpanCredit",
}
