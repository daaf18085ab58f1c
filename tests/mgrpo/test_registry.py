"""What method folders declare is found, once each, without loading what it names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mgrpo import registry


@pytest.mark.parametrize("kind", ["PLUGINS", "LOSSES", "SOURCES", "SAMPLERS"])
def test_every_declared_name_leads_to_a_class(kind: registry.Kind) -> None:
    names = registry.declared(kind)
    assert names and list(names) == sorted(names)
    for name, target in names.items():
        found = registry.load(kind, name)
        assert isinstance(found, type)
        assert f"{found.__module__}:{found.__name__}" == target


def test_the_names_are_known_without_torch() -> None:
    program = (
        "import sys; from mgrpo.registry import declared; declared('PLUGINS'); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_name_that_two_folders_declare_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = ("learner.plugins", "learner.plugins")
    monkeypatch.setattr(registry, "SHARED", twice)
    with pytest.raises(AssertionError, match=r"entropy_bonus.*both"):
        registry.declared.__wrapped__("PLUGINS")  # past the cache
