"""ScRPO (arXiv 2511.06065)."""

PLUGINS = {
    "reflection_span": "reflection_span:ReflectionSpan",
    "span_credit": "span_credit:SpanCredit",
}
SOURCES = {"error_pool": "source:PooledErrors"}
