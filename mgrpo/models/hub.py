"""Whether the Hugging Face hub answers, tested once with a short timeout.

Without a network the hub's client retries each file for 20 s and more; a check that should
answer in seconds asks first and then has the libraries look into their caches only.
"""

from __future__ import annotations

import functools
import os
import sys
import urllib.error
import urllib.request

DEADLINE_S = 4.0
DEFAULT_ENDPOINT = "https://huggingface.co"


@functools.cache
def is_hub_reachable() -> bool:
    """Whether the hub (HF_ENDPOINT) answers within a few seconds. False in offline mode."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    request = urllib.request.Request(os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT), method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S):
            return True
    except urllib.error.HTTPError:
        return True  # an answer, even if it refuses HEAD
    except (OSError, ValueError):
        return False


def use_cache_only() -> None:
    """Have the Hugging Face libraries of this process, and of its children, stay offline."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported ...
    for name, setting in (
        ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
        ("datasets.config", "HF_HUB_OFFLINE"),
    ):
        if name in sys.modules:  # ... so tell those that are imported already
            setattr(sys.modules[name], setting, True)
