"""One study on every engine: the same files; and what each does when its workers die."""

import os
import signal
import subprocess
import sys
import time

import pytest

from analysis.engine import EngineError, open_engine, run_jobs
from tests.analysis.small_study import assert_same_results
from tests.analysis.tiny_study import run_tiny

distributed = pytest.importorskip("distributed")


def jobs_done(engine, jobs):
    """(id -> error of every job, all events)."""
    done, events = {}, []
    run_jobs(engine, jobs, events.append, lambda job, _, error: done.__setitem__(job, error))
    return done, events


class Die:
    """A job that kills its worker, always or but once."""

    def __init__(self, once_at=None):
        self.once_at = once_at

    def __call__(self, report):  # noqa: ARG002
        if self.once_at is not None:
            if self.once_at.exists():
                return
            self.once_at.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def do_nothing(report):
    report("nothing", 1, 1)


def use_up_the_memory(report):
    raise MemoryError("tried to allocate 1 TiB")


def test_a_job_that_kills_its_workers_is_recorded_and_no_other_is_blamed(tmp_path):
    jobs = [("killer", Die()), *((f"job {k}", do_nothing) for k in range(3)), ("out", use_up_the_memory)]
    with open_engine("processes", 1, threads=1) as engine:
        done, _ = jobs_done(engine, jobs)
    assert "its worker was killed 3 times" in str(done.pop("killer"))
    assert "1 TiB" in str(done.pop("out"))
    assert done == {f"job {k}": None for k in range(3)}


@pytest.fixture(scope="module")
def local_cluster():
    """A cluster of one worker on the spot, for the tests that leave it alive."""
    with open_engine("dask", 1, threads=1) as engine:
        yield engine


def test_dask_replaces_a_killed_worker_and_reports_progress(local_cluster, tmp_path):
    done, events = jobs_done(local_cluster, [("unlucky", Die(tmp_path / "died")), ("other", do_nothing)])
    assert done == {"unlucky": None, "other": None}
    assert (tmp_path / "died").exists()
    deadline = time.monotonic() + 10
    while ("other", "nothing", 1, 1) not in events:
        assert time.monotonic() < deadline
        local_cluster.deliver(events.append)


def test_a_study_on_a_dask_cluster_gives_the_same_bits(undisturbed, tmp_path):
    out = tmp_path / "out"
    outcome, _ = run_tiny(tmp_path, out, engine="dask")
    assert not outcome.failed
    for path in undisturbed.rglob("seed*.h5"):
        assert_same_results(out / path.relative_to(undisturbed), path)


def test_a_killed_scheduler_ends_the_study_with_a_word(tmp_path):
    ready = tmp_path / "ready"
    code = (
        "import sys, pathlib, time\n"
        "from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol='tcp',\n"
        "        host='127.0.0.1', dashboard_address=None)\n"
        "    pathlib.Path(sys.argv[1]).write_text(cluster.scheduler_address)\n"
        "    time.sleep(300)\n"
    )
    scheduler = subprocess.Popen(
        [sys.executable, "-c", code, str(ready)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    try:
        while not (ready.exists() and ready.read_text()):
            assert scheduler.poll() is None
            time.sleep(0.05)
        with pytest.raises(EngineError, match="scheduler is gone; what is finished is kept"):  # noqa: SIM117
            with open_engine("dask", scheduler=ready.read_text()) as engine:
                # the worker is a thread of the scheduler's process
                jobs_done(engine, [("killer", Die())])
    finally:
        scheduler.kill()
        scheduler.wait()


def test_an_address_where_nobody_answers_is_an_error_in_a_line(monkeypatch):
    monkeypatch.setattr("analysis.engine.cluster.SECONDS_TO_ANSWER", 0.5)
    with pytest.raises(EngineError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):  # noqa: SIM117
        with open_engine("dask", scheduler="tcp://127.0.0.1:9"):
            pass
