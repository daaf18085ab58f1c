"""A recipe with a secret in it is refused by name, and no message has the secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgrpo.config.load import load_recipe
from mgrpo.config.yaml_core import dump_yaml
from mgrpo.errors import ConfigError
from mgrpo.records.secret_values import HIDDEN

VALUE = "hunter2-of-this-test"
TOKEN = "hf_" + "a1B2" * 8
PLUGIN = "plugins=[{{use: mine, settings: {{{}: {}}}}}]"


@pytest.mark.parametrize(
    ("override", "path"),
    [
        (f"output.storage.options.secret={VALUE}", "output.storage.options.secret"),
        (f"output.storage.options={{key: {VALUE}}}", "output.storage.options.key"),
        (f"output.storage.options.token={{type: {VALUE}}}", "output.storage.options.token"),
        (f"output.runs_dir=s3://me:{VALUE}@bucket/runs", "output.runs_dir"),
        (f"data.train.path=https://me:{VALUE}@host/rows", "data.train.path"),
        (f"model.path=s3://bucket/model?X-Amz-Signature={VALUE}", "model.path"),
        (f"output.trackers.0=x://me:{VALUE}@host", "output.trackers.0"),
        (f"engines.extra_args.hf_token={VALUE}", "engines.extra_args.hf_token"),
        (PLUGIN.format("api_key", VALUE), "plugins.0.settings.api_key"),
        (PLUGIN.format("other", TOKEN), "plugins.0.settings.other"),
        (f"description=with {TOKEN}", "description"),
    ],
)
def test_a_secret_is_refused_and_not_repeated(override: str, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("quickstart", [override, "steps=none"])
    (fault,) = caught.value.faults
    assert (fault.path, fault.value) == (path, HIDDEN)
    assert "environment variable" in fault.suggestion
    assert VALUE not in str(caught.value) and TOKEN not in str(caught.value)


def test_the_value_of_a_secret_variable_is_refused_by_the_variable_s_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JUDGE_KEY", VALUE)
    with pytest.raises(ConfigError, match="variable JUDGE_KEY") as caught:
        load_recipe("quickstart", [f"description=Bearer {VALUE}"])
    assert VALUE not in str(caught.value)


def test_a_secret_of_a_file_of_its_base_and_of_a_caller_is_refused(tmp_path: Path) -> None:
    options = {"output": {"storage": {"options": {"secret": VALUE}}}}
    base, file = tmp_path / "base.yaml", tmp_path / "recipe.yaml"
    base.write_text(dump_yaml({"extends": "quickstart", **options}))
    file.write_text(dump_yaml({"extends": "base.yaml", "steps": 3}))
    with pytest.raises(ConfigError, match=r"base\.yaml has 1 fault") as caught:
        load_recipe(file)
    assert VALUE not in str(caught.value)
    with pytest.raises(ConfigError, match=r"options\.secret"):
        load_recipe({"extends": "quickstart", **options})
    with pytest.raises(ConfigError, match=r"options\.secret"):
        load_recipe("quickstart", changes=options)


@pytest.mark.parametrize(
    "override",
    [
        f"output.storage.options.secret=*{VALUE}",
        f"output.storage.options={{key: *{VALUE}}}",
        f"output.storage.options.key:{VALUE}",
        f"layers.nope.settings.password={VALUE}",
        f"layers.nope={{password: {VALUE}}}",
        f"steps.password.x={VALUE}",
        f"data.train.password={VALUE}\udcff",
        "a." * 200 + f"password={VALUE}",
    ],
)
def test_a_faulty_override_does_not_show_its_secret(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("quickstart", [override])
    assert VALUE not in str(caught.value)


def test_a_faulty_file_does_not_show_its_secret(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"name: a\nsecret: *{VALUE}\n")
    with pytest.raises(ConfigError, match=r"line 2, column 9\): is not YAML\.") as caught:
        load_recipe(file)
    assert VALUE not in str(caught.value)
    file.write_text("name: *unknown\n")
    with pytest.raises(ConfigError, match="undefined alias"):
        load_recipe(file)


def test_what_names_no_secret_is_accepted() -> None:
    overrides = [
        "output.storage.options={endpoint_url: 'http://127.0.0.1:9000', token: null}",
        "engines.extra_args.hf_token=true",
        "output.runs_dir=sftp://me@host/runs",
    ]
    config = load_recipe("quickstart", overrides)
    assert config.output.storage.options["token"] is None
