"""Checks that every plug-in of the recipe can be loaded and suits the recipe."""

from __future__ import annotations

from learner.streaming import check_streaming
from mgrpo.check.plugin_warnings import plugin_warnings
from mgrpo.config import MethodView
from mgrpo.config.pipeline import PipelineConfig
from mgrpo.errors import ConfigError
from mgrpo.findings import CheckLine
from mgrpo.plugin import Plugin, entries_of, load_plugins


def plugin_lines(method: MethodView, pipeline: PipelineConfig) -> list[CheckLine]:
    """One line per problem, or one that names them all and one per warning; nothing for a recipe
    without any.

    A plug-in is imported and made as in training, but not started: that may load a model.
    """
    entries, _ = entries_of(method)
    if not entries and not method.plugins:
        return []
    try:
        load_plugins(method, Plugin)
        check_streaming(method, pipeline)
    except ConfigError as error:
        return [CheckLine("fail", "plugins", str(fault)) for fault in error.faults]
    names = ", ".join(entry.name for entry in entries)
    warnings = [CheckLine("warn", "plugins", text) for text in plugin_warnings(method)]
    return [CheckLine("ok", "plugins", names), *warnings]
