"""The timeline says what the numbers say."""

from __future__ import annotations

from xml.etree import ElementTree

from mgrpo.simulation.picture import svg_timeline, text_timeline
from mgrpo.simulation.rates import EngineRates, LearnerRates, Rates
from mgrpo.simulation.simulator import Layout, Order, simulate
from mgrpo.simulation.workload import FixedLengths, LayerWork, Workload

LAYER = LayerWork(name="solve", group_size=2, max_tokens=100, lengths=FixedLengths(tokens=10))
OUTCOME = simulate(
    Workload(prompts_per_step=2, prompt_tokens=5, layers=[LAYER]),
    Layout(num_engines=[1], num_ranks=1),
    Order(),
    # 10 s of sampling, 2 * (5 + 20) * 0.2 = 10 s of learning, 10 s of weights
    Rates(
        engine=EngineRates(step_s=1.0, max_running=4),
        learner=LearnerRates(token_s=0.2),
        weights_s=10.0,
    ),
    num_steps=2,
)


def test_a_synchronous_step_is_three_blocks() -> None:
    rows = dict(line.split(maxsplit=1) for line in text_timeline(OUTCOME, width=30))
    lines = list(text_timeline(OUTCOME, width=30))
    assert lines[0] == "shared   " + "█" * 10
    assert lines[1] == "learner  " + " " * 10 + "█" * 10
    assert lines[2] == "waits    " + " " * 20 + "w" * 10
    assert lines[3].endswith("|") and len(lines[3]) >= 39
    assert rows["w:"] == "weights"


def test_the_image_has_a_box_for_each_span_of_the_shown_steps() -> None:
    root = ElementTree.fromstring(svg_timeline(OUTCOME, "a <title> & more"))
    titles = [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["update of step 1: 10.0 s", "weights of step 2: 10.0 s"]
