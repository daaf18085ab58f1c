"""An object of JSON, with the one name of its type."""

from __future__ import annotations

from typing import Any

JsonObject = dict[str, Any]
"""From a file, a request or a recipe: each value is text, a number, a boolean, None, a list or
another such object. Code that only passes values on says `Mapping[str, object]` instead."""
