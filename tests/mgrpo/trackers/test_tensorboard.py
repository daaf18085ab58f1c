from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mgrpo.config import TensorboardConfig
from mgrpo.trackers import RunFacts, open_trackers


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
