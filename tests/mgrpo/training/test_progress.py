import io
import re
from types import SimpleNamespace

from rich.console import Console

from mgrpo.training.progress import TrainProgress, columns_for, print_before_after, print_next
from tests.mgrpo.report.fake_run import make_evaluation

VALUES = {
    "layer1/accuracy": 0.421,
    "layer2/accuracy": 0.455,
    "transition/layer2/wrong_to_right": 0.09,
    "transition/layer2/right_to_wrong": 0.056,
    "layer1/reward_mean": 0.4,
    "tokens/generated": 21049.0,
    "learner/grad_norm": 0.667,
    "mismatch/logprob_gap_mean": 0.002,
    "seconds/rollout": 4.6,
    "seconds/update": 2.4,
    "seconds/weights": 0.3,
    "tokens/per_s": 2870.4,
    "layer1/completion_tokens_mean": 52.25,
    "layer1/truncated_fraction": 0.031,
    "learner/entropy": 0.4512,
}


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=80, highlight=False)


def terminal(width: int = 120) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def written(console: Console) -> str:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    return text.replace("\u00a0", " ")


def test_a_log_gets_one_line_per_step_however_long():
    console = plain_console()
    with TrainProgress(2, "sums", num_layers=2, console=console) as progress:
        for step in range(2):
            progress.phase("layer 1 · 87/128 groups", fraction=0.5)
            progress.step_done(step, VALUES)
    lines = written(console).splitlines()
    assert lines[0] == "sums: 2 steps"
    assert lines[1].startswith("Acc@t1: share right after turn 1; Acc@t2: share right after turn 2")
    assert len(lines) == 4  # phases of short steps are not logged
    assert lines[2].startswith(
        "step 0  Acc@t1 0.421  Acc@t2 0.455  i→c 0.090  c→i 0.056  reward 0.400  tokens 21,049"
    )
    rest = "tok/s 2,870  length 52.2  cut 0.031  entropy 0.451"
    assert f"roll s 4.6  upd s 2.4  wts s 0.3  {rest}  done 1/2  left " in lines[2]
    assert lines[3].endswith("done 2/2  left 0.0 s")


def test_a_metric_that_is_not_finite_ends_no_run():
    for value in (float("inf"), -float("inf"), float("nan")):
        for console in (plain_console(), terminal()):
            with TrainProgress(2, "sums", num_layers=2, console=console) as progress:
                progress.step_done(0, dict.fromkeys(VALUES, value))
            assert "step" in written(console)


def test_a_long_step_says_now_and_then_how_far_it_is(monkeypatch):
    # Made, entered, then a phase at 29, 31, 40, 62 s; the step ends at 63 s, and a phase at 80 s.
    clock = iter([0.0, 0.0, 29.0, 31.0, 40.0, 62.0, 63.0, 80.0, 94.0])
    monkeypatch.setattr(
        "mgrpo.training.progress.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    console = plain_console()
    with TrainProgress(14, "sums", num_layers=1, first_step=12, console=console) as progress:
        for done in (10, 87, 90, 128):
            progress.phase(f"layer 2 · {done}/128 groups", fraction=done / 128)
        progress.step_done(12, {})
        progress.phase("layer 1 · 1/16 groups")
        progress.phase("learner · [update]")
    lines = written(console).splitlines()[2:]
    assert lines[:2] == ["step 12 · layer 2 · 87/128 groups", "step 12 · layer 2 · 128/128 groups"]
    assert lines[2].startswith("step 12  Acc@t1")
    assert lines[3:] == ["step 13 · learner · [update]"]


def test_a_missing_value_and_one_that_is_not_a_number_show_as_a_dash():
    console = plain_console()
    with TrainProgress(1, "sums", num_layers=1, console=console) as progress:
        progress.step_done(0, {"layer1/accuracy": None, "learner/grad_norm": float("nan")})
    line = written(console).splitlines()[2]
    assert "Acc@t1 \u2013 " in line and "grad \u2013 " in line
    assert "Acc@t2" not in line  # one layer has one accuracy


def test_a_terminal_gets_a_header_and_aligned_rows_that_fit():
    console = terminal(width=80)
    with TrainProgress(30, "sums", num_layers=2, console=console) as progress:
        progress.step_done(0, VALUES)
    lines = written(console).replace("\r", "\n").splitlines()
    header = next(line for line in lines if "Acc@t1  " in line)
    row = next(line for line in lines if "0.421" in line)
    assert header.index("Acc@t2") + len("Acc@t2") == row.index("0.455") + len("0.455")
    assert len(row) <= 80


def test_a_narrow_terminal_loses_the_least_telling_columns():
    assert [column.head for column in columns_for(2, 50)] == ["Acc@t1", "Acc@t2", "i→c", "c→i"]
    assert columns_for(2, 200)[-1].head == "entropy"


def test_phases_show_on_a_terminal_and_their_text_is_not_markup():
    console = terminal()
    with TrainProgress(3, "sums", num_layers=1, console=console) as progress:
        progress.phase("layer 1 [red]87/128[/red]", fraction=0.5)
        progress.live.refresh()
    assert "layer 1 [red]87/128[/red]" in written(console)


def test_the_time_left_follows_the_latest_steps(monkeypatch):
    clock = iter([0.0, 0.0, 10.0, 12.0])
    monkeypatch.setattr(
        "mgrpo.training.progress.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    progress = TrainProgress(10, "sums", num_layers=1, first_step=4, console=plain_console())
    assert progress.seconds_left() is None
    with progress:
        progress.step_done(4, VALUES)  # 10 s
        progress.step_done(5, VALUES)  # 2 s
    assert progress.seconds_left() == 6.0 * 4  # a mean of 6 s, and 4 of 10 steps to go


def test_the_time_left_counts_the_evaluations_to_come():
    progress = TrainProgress(10, "sums", num_layers=1, console=plain_console())
    with progress:
        progress.evaluated(3.0, num_left=2)
        progress.step_done(0, {"seconds/step": 5.0})
        assert progress.seconds_left() == 5.0 * 9 + 3.0 * 2
        progress.evaluated(4.0, num_left=1)
        assert progress.seconds_left() == 5.0 * 9 + 4.0


def test_a_resumed_run_says_so_and_counts_on():
    console = plain_console()
    with TrainProgress(10, "sums", num_layers=1, first_step=4, console=console) as progress:
        progress.step_done(4, VALUES)
    assert "sums: 6 steps, resumed after step 4" in written(console)
    assert "done 5/10" in written(console)


def test_notes_and_warnings_are_lines_of_their_own_without_markup():
    console = plain_console()
    with TrainProgress(1, "sums", num_layers=1, console=console) as progress:
        progress.note("written: [bold]x[/bold]")
        progress.warn("the gap is " + "large " * 30)
    lines = written(console).splitlines()
    assert lines[2] == "written: [bold]x[/bold]"
    assert lines[3].startswith("warning: the gap is large") and len(lines) == 4


def test_notes_and_warnings_show_no_secret():
    console = plain_console()
    with TrainProgress(1, "sums", num_layers=1, console=console) as progress:
        progress.note("at ftp://me:hunter2@host")
        progress.warn("at ftp://me:hunter2@host")
    assert written(console).count("at ftp://me:(not shown)@host") == 2


def test_the_final_table_shows_before_after_change_and_domains():
    console = Console(file=io.StringIO(), width=100, highlight=False)
    evaluations = [make_evaluation(0, "before", 0.42, 2), make_evaluation(60, "after", 0.71, 2)]
    steps = [{"layer1/accuracy": share} for share in (0.5, 0.5, 0.6, 0.7)]
    print_before_after(console, evaluations, steps)
    text = written(console)
    assert "Sampled first-attempt accuracy in training rose from 50 % to 70 %" in text
    assert "rose from 42 % to 71 %; a second look adds 3 points." in text
    assert re.search(r"First attempt, Acc@t1' +42\.0 % +71\.0 % +\+29\.0", text)
    assert re.search(r"Wrong → right +9\.0 %", text)
    assert "number_sorting · 100 problems" in text
    assert "200 held-out problems, greedy decoding." in text


def test_nothing_is_printed_where_nothing_was_measured():
    console = plain_console()
    print_before_after(console, [])
    assert written(console) == ""


def test_steps_that_changed_nothing_are_counted_at_the_end():
    console = plain_console()
    silent = {"learner/skipped_updates": 1.0, "layer1/zero_variance_fraction": 1.0}
    print_before_after(console, [], [silent, silent])
    assert "0 of 2 steps changed the policy. In all groups" in " ".join(written(console).split())


def test_the_end_says_what_can_be_done_next(tmp_path):
    console = plain_console()
    print_next(console, tmp_path / "runs" / "sums", "default", 20)
    text = written(console)
    assert f"mgrpo eval {tmp_path}/runs/sums --against default" in text
    assert "steps=40" in text and "mgrpo init NAME --data FILE" in text
