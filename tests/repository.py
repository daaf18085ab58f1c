"""Where the repository lies, for tests that read its files or run its commands."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
