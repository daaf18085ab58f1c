from cluster.runtime import allowed_environment
from mgrpo.config import ClusterConfig


def test_only_variables_of_the_list_travel_and_credentials_are_not_on_it(monkeypatch):
    for name in ("HF_TOKEN", "MGRPO_CACHE", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "MY_HF_X"):
        monkeypatch.setenv(name, "value")
    travelling = allowed_environment(ClusterConfig().env_prefixes)
    assert {"HF_TOKEN", "MGRPO_CACHE"} <= travelling.keys()
    assert not {"AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "MY_HF_X", "PATH"} & travelling.keys()
    widened = allowed_environment([*ClusterConfig().env_prefixes, "AWS_"])
    assert widened["AWS_SECRET_ACCESS_KEY"] == "value"
