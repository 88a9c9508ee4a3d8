"""The time left that a study tells is a range which the truth lies in, and it says what it does not know."""

import heapq
import io

import numpy as np
import pytest
from rich.console import Console, Group

from analysis.engine import progress
from analysis.engine.progress import Planned, RunsProgress
from analysis.engine.time_left import TimeLeft, in_words, time_left


def seconds_until_the_last(durations, workers):
    """When workers that each take the next run are done with all."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)


def test_nothing_is_known_before_a_run_is_done():
    assert time_left({}, {"SGD": 4}, [("SGD", 100.0)], 2) is None
    assert in_words(None) == "unknown"


def test_runs_of_planted_equal_lengths_are_told_exactly():
    # 6 of 10 s and 3 of 20 s on 3 workers, of which 15 s are done
    estimate = time_left({"SGD": [10, 10], "SAM": [20]}, {"SGD": 6, "SAM": 3}, [("SGD", 5), ("SAM", 10)], 3)
    assert estimate.low == pytest.approx((120 - 15) / 3)
    # and one of 20 s may be the last to start
    assert estimate.high == pytest.approx((120 - 15) / 3 + 20 * 2 / 3)


def test_a_run_that_takes_longer_than_its_kind_promises_nothing_for_the_others():
    usual = time_left({"SGD": [10, 10]}, {"SGD": 2}, [("SGD", 10)], 1)
    assert time_left({"SGD": [10, 10]}, {"SGD": 2}, [("SGD", 1000)], 1) == usual


def test_a_kind_of_which_none_is_done_leaves_the_upper_end_open():
    estimate = time_left({"SGD": [10, 10]}, {"SGD": 3, "SAM": 5}, [], 1)
    assert estimate == TimeLeft(pytest.approx(30), None, ("SAM",))
    assert in_words(estimate) == "at least 30 s (1 kind of runs not yet timed)"
    assert in_words(TimeLeft(0.0, None, ("SAM",))) == "unknown (1 kind of runs not yet timed)"
    # once it has one, or nothing of it is left, there is an end
    assert time_left({"SGD": [10], "SAM": [20]}, {"SGD": 3, "SAM": 5}, [], 1).high is not None
    assert time_left({"SGD": [10]}, {"SGD": 3, "SAM": 0}, [], 1).high is not None


def test_one_run_alone_says_little_and_many_say_more():
    one = time_left({"SGD": [10]}, {"SGD": 30}, [], 1)
    assert (one.low, one.high) == (150, 600)
    few, many = (time_left({"SGD": [8, 12] * k}, {"SGD": 30}, [], 1) for k in (1, 20))
    assert few.high - few.low > 4 * (many.high - many.low)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_truth_lies_in_the_range_nine_times_in_ten(workers):
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        sgd, sam = rng.lognormal(1, 0.3, 30), 2.2 * rng.lognormal(1, 0.3, 30)
        estimate = time_left(
            {"SGD": list(sgd[:3]), "SAM": list(sam[:4])}, {"SGD": 27, "SAM": 26}, [], workers
        )
        truth = seconds_until_the_last([*sgd[3:], *sam[4:]], workers)
        inside += estimate.low <= truth <= estimate.high
    assert inside / 400 > 0.85


@pytest.mark.parametrize("width", [60, 80, 120])
def test_one_line_shows_what_is_done_the_time_left_and_what_is_at_work(width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=40)
    planned = {f"{kind}{k}": Planned(f"{kind} seed {k}", kind) for kind in ("SGD", "SAM") for k in range(3)}
    with RunsProgress(console, planned, ["SGD0"], lambda: 2) as shown:
        shown.update(("SGD1", "training", 2, 7))
        shown.finish("SGD1", 3.0, None)
        shown.update(("SGD1", "training", 7, 7))
        shown.update(("SGD2", "measuring", 7, 7))
        shown.finish("SAM0", None, MemoryError("1 [TiB]"))
    with console.capture() as capture:
        console.print(Group(shown._shown()))
    (line,) = capture.get().splitlines()
    assert line.startswith("2 of 6 runs done, 1 failed; time left: unknown (1 kind of r")
    assert ("SGD seed 2: measuring 7 of 7" in line) == (width == 120)
    assert "SGD seed 1" not in line
    assert "SAM seed 0 failed: MemoryError: 1 [TiB]" in console.file.getvalue()


def test_runs_may_end_while_the_thread_that_draws_counts_the_time_left(monkeypatch):
    shown = RunsProgress(
        Console(file=io.StringIO()), {kind: Planned(kind, kind) for kind in "abc"}, [], lambda: 1
    )
    ended = iter("abc")

    def meanwhile(done, left, in_hand, workers):
        for kind, seconds in done.items():
            for job in ended:
                monkeypatch.setattr(progress, "time_left", time_left)
                shown.finish(job, 1.0, None)
            assert seconds == [], f"the seconds of {kind} are those at the start of the count"

    monkeypatch.setattr(progress, "time_left", meanwhile)
    assert "time left: unknown" in shown._shown().plain


def test_without_a_terminal_there_are_plain_lines():
    printed = io.StringIO()
    planned = {str(k): Planned(f"run {k}", "SGD") for k in range(20)}
    with RunsProgress(Console(file=printed, width=100), planned, [], lambda: 1) as shown:
        for job in planned:
            shown.finish(job, 60.0, None)
    lines = printed.getvalue().splitlines()
    assert lines[0] == "0 of 20 runs are there"
    assert lines[1].startswith("1 of 20 runs done; time left: ")
    assert lines[2] == "5 of 20 runs done; time left: 15 min"
    assert lines[-1] == "20 of 20 runs done"
    assert len(lines) == 6
