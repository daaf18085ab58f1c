"""The guide about judges and services: its recipes load, and its server answers."""

import asyncio
import re

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from mgrpo.config import RewardsConfig
from mgrpo.config.services import HttpTerm
from mgrpo.types import Problem
from rewards.conventions import Group
from rewards.services.http_reward import HttpReward
from tests.contracts.sources import ROOT

GUIDE = (ROOT / "docs/guides/judges.md").read_text(encoding="utf-8")
SEVEN = Problem(problem_id="seven", question="What is 3 + 4?", answer="7")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_its_recipes_load(text):
    assert RewardsConfig.model_validate(yaml.safe_load(text)["rewards"]).terms


def test_its_server_scores(monkeypatch):
    served = []
    monkeypatch.setattr(web, "run_app", lambda app, **_: served.append(app))
    (code,) = blocks("python")
    exec(code, {})

    async def run():
        async with TestServer(served[0]) as server:
            reward = HttpReward(HttpTerm(http=str(server.make_url("/score"))))
            group = Group(problem=SEVEN, texts=["It is 7", "It is 8"])
            try:
                return await reward.score(group, lambda: None)
            finally:
                await reward.connection.opened().close()

    assert [one.value for one in asyncio.run(run())] == [1.0, 0.0]
