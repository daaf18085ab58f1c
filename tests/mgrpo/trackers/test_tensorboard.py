from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mgrpo.config import TensorboardConfig
from mgrpo.trackers import RunFacts, open_trackers
from tests.mgrpo.trackers.resumed_run import record


def write_run(run_dir, steps, value, first_step=0):
    facts = RunFacts("sums", run_dir, first_step=first_step)
    with open_trackers([TensorboardConfig()], facts) as trackers:
        for step in steps:
            trackers.write(step, {"learner/loss": value, "learner/kl": float("nan")})


def test_tensorboard_shows_the_finite_values_and_a_resumed_run_hides_what_it_repeats(tmp_path):
    write_run(tmp_path, range(5), 0.5)
    write_run(tmp_path, range(3, 5), 0.25, first_step=3)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["learner/loss"]
    assert [(event.step, event.value) for event in events.Scalars("learner/loss")] == [
        (0, 0.5),
        (1, 0.5),
        (2, 0.5),
        (3, 0.25),
        (4, 0.25),
    ]


def test_the_recipe_some_completions_and_charts_of_what_is_learnt_are_shown_too(tmp_path):
    record(TensorboardConfig(), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()["tensors"]
    assert "custom_scalars__config__" in tags
    texts = {
        tag.partition("/")[0]: [
            (one.step, one.tensor_proto.string_val[0].decode()) for one in events.Tensors(tag)
        ]
        for tag in tags
        if tag.endswith("text_summary")
    }
    (step, recipe) = texts["recipe"][0]
    assert step == 0 and recipe.startswith("    steps: 5\n    layers.0.name: solve\n")
    ((step, table),) = texts["completions"]
    assert step == 0
    assert table.splitlines()[2:] == [
        "| s0p0#0 | 1 | 3 \\| 4? | so<br>7 | 7 | 1 |",
        "| s0p0#1 | 1 | 3 \\| 4? | none | 7 |  |",
    ]
