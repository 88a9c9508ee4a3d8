"""One study on every engine: the same files; and what each does when its workers die."""

import asyncio
import gc
import http.server
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch

from analysis.engine import EngineError, Resources, cluster, cores, open_engine, run_jobs
from analysis.engine.processes import gpus_of_workers
from analysis.engine.progress import RunsProgress
from tests.analysis.jobs import (
    Die,
    DieReporting,
    do_nothing,
    fail_oddly,
    report_and_wait,
    report_much,
    use_up_the_memory,
)
from tests.analysis.small_study import assert_same_results, write_study
from tests.analysis.tiny_study import LONGER, TINY, interrupted_in_training, run_tiny

distributed = pytest.importorskip("distributed")


def jobs_done(engine, jobs):
    """(id -> error of every job, all events)."""
    done, events = {}, []
    run_jobs(engine, jobs, events.append, lambda job, _, error: done.__setitem__(job, error))
    return done, events


def test_a_job_that_kills_its_workers_is_recorded_and_no_other_is_blamed(tmp_path):
    jobs = [
        ("killer", Die()),
        *((f"job {k}", do_nothing) for k in range(3)),
        ("out", use_up_the_memory),
        ("odd", fail_oddly),
    ]
    with open_engine(Resources("processes", threads=1)) as engine:
        done, _ = jobs_done(engine, jobs)
    assert "its worker was killed 3 times" in str(done.pop("killer"))
    assert "1 TiB" in str(done.pop("out"))
    assert str(done.pop("odd")) == "OddError: no compiler"
    assert done == {f"job {k}": None for k in range(3)}


def test_a_worker_killed_in_the_middle_of_a_report_does_not_silence_the_next_one(tmp_path):
    with open_engine(Resources("processes", threads=1)) as engine:
        done, events = jobs_done(engine, [("unlucky", DieReporting(tmp_path / "died"))])
        deadline = time.monotonic() + 60
        while ("unlucky", "second life", 1, 1) not in events:
            assert time.monotonic() < deadline
            engine.deliver()
    assert done == {"unlucky": None}


def test_no_process_but_the_workers_is_ended():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()

    def interrupted(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_engine(Resources("processes", threads=1)) as engine:
        run_jobs(engine, [("job", report_and_wait)], interrupted, print)
    left = multiprocessing.active_children()
    other.kill()
    other.join()
    assert left == [other]


def test_cores_are_those_that_this_process_may_use():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("NOT TESTED: no affinity here")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_reports_that_nobody_reads_do_not_keep_a_worker_from_its_end():
    with open_engine(Resources("processes", threads=1)) as engine:
        future = engine.submit(("talker", report_much))
        assert future.result(timeout=120) is None
    assert not multiprocessing.active_children()


@pytest.fixture(scope="module")
def local_cluster():
    """A cluster of one worker on the spot, for the tests that leave it alive."""
    with open_engine(Resources("dask", threads=1)) as engine:
        yield engine


def test_dask_replaces_a_killed_worker_and_reports_progress(local_cluster, tmp_path):
    done, events = jobs_done(local_cluster, [("unlucky", Die(tmp_path / "died")), ("other", do_nothing)])
    assert done == {"unlucky": None, "other": None}
    assert (tmp_path / "died").exists()
    deadline = time.monotonic() + 60
    while ("other", "nothing", 1, 1) not in events:
        assert time.monotonic() < deadline
        local_cluster.deliver()


def test_a_study_on_a_dask_cluster_gives_the_same_bits(undisturbed, tmp_path):
    out = tmp_path / "out"
    outcome, _ = run_tiny(tmp_path, out, engine="dask")
    assert not outcome.failed
    for path in undisturbed.rglob("seed*.h5"):
        assert_same_results(out / path.relative_to(undisturbed), path)


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler in a process of its own, its worker a thread there; and what kills it."""
    ready = tmp_path / "ready"
    code = (
        "import os, sys, pathlib, time\n"
        "from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol='tcp',\n"
        "        host='127.0.0.1', dashboard_address=None)\n"
        "    pathlib.Path(sys.argv[1] + '.part').write_text(cluster.scheduler_address)\n"
        "    os.replace(sys.argv[1] + '.part', sys.argv[1])\n"
        "    time.sleep(300)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(ready)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    try:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.05)
        yield ready.read_text(), process.kill
    finally:
        process.kill()
        process.wait()


def test_a_scheduler_killed_in_mid_study_ends_it_with_a_word_and_a_new_start_ends_with_the_same_numbers(
    scheduler, tmp_path, monkeypatch, capfd
):
    address, kill = scheduler
    out = tmp_path / "out"

    class Killing(RunsProgress):
        """Kills the scheduler once a run is done and the next is in training."""

        def update(self, event):
            if list(out.rglob("seed*.h5")) and event[1] == "training" and 0 < event[2] < event[3]:
                kill()
            super().update(event)

    with monkeypatch.context() as patched:
        patched.setattr("analysis.engine.whole_study.RunsProgress", Killing)
        with pytest.raises(EngineError, match="scheduler is gone; what is finished is kept"):
            run_tiny(tmp_path, out, LONGER, engine="dask", scheduler=address)
    assert "Traceback" not in capfd.readouterr().err
    (finished,) = out.rglob("seed*.h5")
    before = finished.stat().st_mtime_ns
    outcome, printed = run_tiny(tmp_path, out, LONGER)
    assert "1 of 2 runs are there" in printed
    assert not outcome.failed
    assert finished.stat().st_mtime_ns == before
    run_tiny(tmp_path, tmp_path / "undisturbed", LONGER)
    for path in out.rglob("seed*.h5"):
        assert_same_results(path, tmp_path / "undisturbed" / path.relative_to(out))


@pytest.mark.parametrize(
    ("workers", "device", "gpus", "indices"),
    [
        (3, "cuda", 4, [0, 1, 2]),
        (4, "cuda", 2, [0, 1, 0, 1]),
        (2, "cuda", 1, []),
        (2, "cuda:1", 4, []),
        (2, "cpu", 4, []),
    ],
    ids=["one each", "shared in turn", "nothing to divide", "one that was named", "none asked for"],
)
def test_workers_get_gpus_by_index(monkeypatch, workers, device, gpus, indices):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert gpus_of_workers(workers, device) == indices


def test_an_address_where_nobody_answers_is_an_error_in_a_line(monkeypatch):
    monkeypatch.setattr("analysis.engine.cluster.SECONDS_TO_ANSWER", 0.5)
    with pytest.raises(EngineError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):  # noqa: SIM117
        with open_engine(Resources("dask", scheduler="tcp://127.0.0.1:9")):
            pass


def test_a_scheduler_that_answers_is_heard_where_a_loop_runs_as_in_a_notebook(monkeypatch):
    greeted = []

    class Answer:
        def abort(self):
            greeted.append("abort")

    async def answer(address, **_):
        return Answer()

    monkeypatch.setattr("distributed.comm.connect", answer)

    async def cell():
        cluster._expect_an_answer("tcp://127.0.0.1:8786")

    asyncio.run(cell())
    assert greeted == ["abort"]


def test_an_engine_that_there_is_not_is_an_error_in_a_line():
    with pytest.raises(EngineError, match=r"^engine: unknown 'proceses'; known: .*did you mean 'processes'"):  # noqa: SIM117
        with open_engine(Resources("proceses")):
            pass


def test_the_threads_of_a_job_in_this_process_are_its_own():
    before, seen = torch.get_num_threads(), []

    def job(report):
        seen.append(torch.get_num_threads())

    with open_engine(Resources(threads=before + 1)) as engine:
        engine.submit(("job", job))
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


@pytest.mark.parametrize("address", ["", "host", "http://host", "inproc://host/1/2", "ucx://host:8786"])
def test_what_is_no_address_is_an_error_in_a_line(address):
    with pytest.raises(EngineError, match="--scheduler: must look like tcp://host:8786"):  # noqa: SIM117
        with open_engine(Resources("dask", scheduler=address)):
            pass


def test_a_port_that_accepts_and_says_nothing_is_an_error_in_a_line(monkeypatch):
    monkeypatch.setattr("analysis.engine.cluster.SECONDS_TO_ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"no Dask scheduler answers at '{address}'"):  # noqa: SIM117
            with open_engine(Resources("dask", scheduler=address)):
                pass


def test_a_port_of_another_server_is_an_error_in_a_line(monkeypatch):
    monkeypatch.setattr("analysis.engine.cluster.SECONDS_TO_ANSWER", 1)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.server_port}"
        with pytest.raises(EngineError, match=f"no Dask scheduler answers at '{address}'"):  # noqa: SIM117
            with open_engine(Resources("dask", scheduler=address)):
                pass
        server.shutdown()


def test_a_scheduler_without_workers_is_an_error_in_a_line(monkeypatch):
    monkeypatch.setattr("analysis.engine.cluster.SECONDS_TO_ANSWER", 2)
    with distributed.LocalCluster(
        n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(EngineError, match=f"{address} has no worker; start some by 'dask worker"):  # noqa: SIM117
            with open_engine(Resources("dask", scheduler=address)):
                pass


@pytest.mark.parametrize("where", ["on the spot", "elsewhere"])
def test_ctrl_c_ends_a_study_on_dask_within_seconds_and_with_one_word(where, request, tmp_path):
    path = write_study(tmp_path, TINY.replace("epochs = 3", "epochs = 20000"))
    options = ["--engine", "dask", "--workers", "1"]
    if where == "elsewhere":
        options += ["--scheduler", request.getfixturevalue("scheduler")[0]]
    status, printed, errors = interrupted_in_training(path, tmp_path / "out", *options)
    assert status == 130
    assert printed.endswith("what is finished is kept, and the same command goes on from there\n")
    assert errors == ""


def test_a_cluster_made_on_the_spot_lets_nobody_in_without_its_certificates(local_cluster):
    from distributed import Client

    address = local_cluster._cluster.scheduler_address
    assert address.startswith("tls://")
    for other in (address, address.replace("tls", "tcp")):
        with pytest.raises((OSError, TypeError, ValueError)):
            Client(other, timeout=2, set_as_default=False)
        # a client that is garbage while the next one starts waits for the lock that the start holds
        gc.collect()


def test_a_worker_with_other_code_refuses_its_jobs(local_cluster, monkeypatch):
    monkeypatch.setattr("analysis.engine.cluster.code_digest", lambda: "of other code")
    failed = {}
    run_jobs(
        local_cluster,
        [("job", do_nothing)],
        lambda _: None,
        lambda name, _, error: failed.setdefault(name, error),
    )
    assert "has other code of ncsam than the study" in str(failed["job"])
