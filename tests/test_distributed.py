"""Several processes are one run: they train like one, end together, and go on together."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from polyglot_jax import checkpoint
from polyglot_jax.coordination_log import SAID, plain
from polyglot_jax.distributed import joined
from polyglot_jax.provenance import surroundings
from polyglot_jax.train import train
from tests.runs import (
    ROOT,
    STEPS,
    experiment,
    final_state,
    finish,
    records,
    settings,
    start,
    training,
    when_step,
)

ENDLESS = ("train.steps=100000", "train.checkpoint_every=100000", "health.probe_every=none")
ENDS = 60  # seconds within which all processes must be gone, on a busy machine


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_all(workdir: Path, sets: list[str], count: int, *flags: str) -> list[subprocess.Popen]:
    meet = f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={count}"
    return [start(workdir, sets, *meet, f"--process_id={i}", *flags) for i in range(count)]


def run_all(workdir: Path, sets: list[str], count: int, *flags: str) -> None:
    for code, output in [finish(process) for process in start_all(workdir, sets, count, *flags)]:
        assert code == 0, output


def wait_for(is_due, workdir: Path, processes: list[subprocess.Popen]) -> None:
    while not is_due(workdir, processes[0]):
        assert all(process.poll() is None for process in processes), finish(processes[0])
        time.sleep(0.01)


def break_one(processes: list[subprocess.Popen], victim: int, number: signal.Signals) -> None:
    """Sends the signal to one process; the others must end, each with one clear line."""
    processes[victim].send_signal(number)
    end = time.monotonic() + ENDS
    rest = [process for process in processes if process is not processes[victim]]
    while time.monotonic() < end and any(process.poll() is None for process in rest):
        time.sleep(0.01)
    codes = [process.poll() for process in rest]
    for process in processes:
        process.kill()
    outputs = [finish(process)[1] for process in processes]
    del outputs[victim]
    for code, output in zip(codes, outputs, strict=True):
        assert code in (1, -signal.SIGABRT), output
        errors = [line for line in output.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, output
        assert "run the same command on all hosts again" in errors[0]
        assert output.splitlines()[-1] == errors[0]  # nothing after it: no stack, no addresses


def assert_close(got: Path, want: Path, rtol: float = 1e-5) -> None:
    """Sums over devices are taken in another order, so not to the bit; steps, epochs and learning
    rates are."""
    for a, b in zip(records(got), records(want), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            exact = "epoch" in name or name in ("step", "train/weight", "train/learning_rate")
            assert a[name] == (b[name] if exact else pytest.approx(b[name], rel=rtol)), name


# ---- real processes


def test_one_killed_ends_all_and_the_same_command_goes_on(whole_run, tiny_shards, tmp_path):
    workdir, sets = tmp_path / "run", settings(tiny_shards, "mesh.fsdp=2")
    processes = start_all(workdir, sets, 2)
    wait_for(when_step(8), workdir, processes)
    break_one(processes, 1, signal.SIGKILL)
    run_all(workdir, sets, 2)
    assert_close(workdir, whole_run)
    # fsdp=2: each process holds and writes one half of the state, and one device reads it all
    state = workdir / "checkpoints" / str(STEPS) / "state"
    assert {"ocdbt.process_0", "ocdbt.process_1"} <= {path.name for path in state.iterdir()}
    got, want = (final_state(w, tiny_shards).params for w in (workdir, whole_run))
    # Not closer: keys' biases have no gradient but rounding, of which Adam makes steps.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), got, want)


def test_a_signal_to_one_process_stops_both_after_one_step(tiny_shards, tmp_path):
    sets = settings(tiny_shards, *ENDLESS)
    processes = start_all(tmp_path / "run", sets, 2)
    wait_for(when_step(4), tmp_path / "run", processes)
    processes[1].send_signal(signal.SIGTERM)
    ends = [finish(process) for process in processes]
    step = checkpoint.latest_step(tmp_path / "run")
    for code, output in ends:
        assert code == 128 + signal.SIGTERM, output
        assert f"SIGTERM: step {step} is saved" in output


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda n: n.name)
def test_any_process_of_four_may_die_or_hang(tiny_shards, tmp_path, victim, number):
    """A process that hangs keeps its connections: only its missing signs of life tell."""
    sets = settings(tiny_shards, *ENDLESS)
    processes = start_all(tmp_path / "run", sets, 4, "--peer_timeout=20")
    wait_for(when_step(4), tmp_path / "run", processes)
    break_one(processes, victim, number)


@pytest.mark.slow
def test_two_processes_equal_two_devices_of_one_to_the_bit(tiny_shards, tmp_path, monkeypatch):
    sets = settings(tiny_shards, "mesh.fsdp=2")
    run_all(tmp_path / "two", sets, 2)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    run_all(tmp_path / "one", sets, 1)
    assert records(tmp_path / "two") == records(tmp_path / "one")


@pytest.mark.slow
def test_the_number_of_processes_may_change(whole_run, tiny_shards, tmp_path):
    """1 -> 2 -> 4 -> 1: the same examples in the same steps, whoever reads them."""
    sets = settings(tiny_shards)
    for count, end in ((1, 6), (2, 12), (4, 18), (1, 24)):
        run_all(tmp_path / "run", [*sets, f"mesh.fsdp={count}"], count, f"--steps={end}")
    got, want = training(tmp_path / "run"), training(whole_run)
    assert [r["step"] for r in got] == [r["step"] for r in want]
    for a, b in zip(got, want, strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-5)
        assert a["train/epoch/tiny"] == b["train/epoch/tiny"]


@pytest.mark.slow  # test_train resumes on another mesh as well
def test_another_mesh_goes_on_with_the_same_examples(whole_run, tiny_shards, tmp_path):
    """1x8x1 -> 2x2x2 -> 8x1x1. That wrong examples would show, test_train.py proves."""
    for end, mesh in ((8, (1, 8, 1)), (16, (2, 2, 2)), (STEPS, (8, 1, 1))):
        sizes = [f"mesh.{k}={v}" for k, v in zip(("data", "fsdp", "tensor"), mesh, strict=True)]
        train(experiment(tiny_shards, *sizes), epath.Path(tmp_path / "run"), end)
    assert_close(tmp_path / "run", whole_run)


SHARES = """
    import sys, time
    from polyglot_jax.config import MeshConfig
    from polyglot_jax.distributed import joined
    from polyglot_jax.mesh import local_rows, make_mesh

    where = ("auto",) if sys.argv[1] == "auto" else (sys.argv[1], 2, int(sys.argv[2]))
    with joined(*where, timeout_s=10):
        for data, fsdp, tensor in ((8, 1, 1), (2, 4, 1), (1, 2, 4), (1, 1, 8)):
            mesh = make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))
            print(local_rows(mesh, 16), flush=True)
        if where[0] != "auto":
            if sys.argv[2] == "1":
                raise ValueError("a disk of this host is full")
            time.sleep(120)
"""


def run_shares(where: str, *environments: dict[str, str]) -> list[tuple[int, list[str]]]:
    """Runs SHARES in two processes of 4 devices each; returns exit codes and lines."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SHARES), where, str(i)],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "4"} | environment,
            **{"cwd": ROOT, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        )
        for i, environment in enumerate(environments)
    ]
    return [(code, output.splitlines()) for code, output in map(finish, processes)]


def shares(process: int) -> list[str]:
    """Half of the examples each; where tensor crosses the processes, both need all."""
    own = str(list(range(8 * process, 8 * process + 8)))
    return [own] * 3 + [str(list(range(16)))]


def test_every_process_reads_only_its_share_and_one_failure_ends_all():
    first, second = run_shares(f"127.0.0.1:{free_port()}", {}, {})
    assert second == (1, [*shares(1), "error: a disk of this host is full (process 1 of 2)"])
    code, (*read, ended) = first
    assert (code, read) == (-signal.SIGABRT, shares(0))
    assert ended.startswith("error: process 1 gave no sign of life for 10 s, so this process ends")


def test_slurm_tells_where_to_meet():
    job = {
        **{"SLURM_JOB_ID": "123", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"},
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    tasks = [job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    assert run_shares("auto", *tasks) == [(0, shares(0)), (0, shares(1))]


# ---- what is refused before anything slow


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 2, 0), "need --coordinator=host:port"),
        (("somewhere", 2, 0), "must be host:port of process 0, or 'auto'"),
        (("host:port", 2, 0), "must be host:port"),
        (("host:1234", 2, None), "needs --num_processes and --process_id"),
        (("host:1234", None, 1), "--coordinator=auto needs neither"),
        (("host:1234", 2, 2), "--process_id=2 must be from 0 to 1"),
        (("auto", 2, 0), "--coordinator=auto finds them itself"),
    ],
)
def test_flags_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)), joined(*arguments):
        pass


def test_auto_without_a_cluster_says_what_to_give(tiny_shards, tmp_path):
    code, output = finish(start(tmp_path / "run", settings(tiny_shards), "--coordinator=auto"))
    assert code == 1
    assert re.fullmatch("error: --coordinator=auto found no TPU slice, SLURM .*\n", output)


def test_processes_that_do_not_come_are_named(monkeypatch):
    """JAX ends the process from C++ here as well."""
    program = (
        "from polyglot_jax.distributed import joined\n"
        f"with joined('127.0.0.1:{free_port()}', 2, 1, join_s=2): pass"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGABRT
    assert done.stderr.startswith("error: the processes did not all join within 2 s; start all ")
    assert done.stderr.count("\n") == 1


def test_surroundings_hold_no_secrets(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    described = surroundings()
    assert described["environment"]["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.9"
    assert "hf_secret" not in str(described)
    assert (described["device"], described["devices"], described["processes"]) == ("cpu", 8, 1)


# ---- JAX's own log, as recorded

HEAD = "E1121 16:44:33.789470   17317 "
UNHEALTHY = f"""\
W1121 16:44:30.000000   17317 cpu_client.cc:10] something else
{HEAD}coordination_service.cc:1549] [1037] Use error polling to propagate the following error to \
all tasks: UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):
1
7
The tasks have crashed. Check the task logs for an earlier error.
{HEAD}coordination_service_agent.cc:289] Polled an error from coordination service.
F1121 16:44:33.790039   17328 client.h:80] Terminating process because the JAX distributed \
service detected fatal errors. absl::Status: UNAVAILABLE: The following tasks are unhealthy \
(stopped sending heartbeats):
1
7
The tasks have crashed.

RPC: /xla.coordination.CoordinationService/PollForError
*** Check failure stack trace: ***
    @     0x7fe01a820634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
"""
LEADER = UNHEALTHY.replace(
    "UNAVAILABLE: The following", "UNAVAILABLE: Failed to send RPC to"
).replace("(stopped sending heartbeats)", "")


def test_the_service_speaks_plainly():
    other, error = plain(UNHEALTHY.splitlines(keepends=True), timeout_s=60, join_s=300)
    assert other == UNHEALTHY.splitlines(keepends=True)[0]
    assert error.startswith("error: processes 1, 7 gave no sign of life for 60 s, so this process ")
    assert error.endswith("to go on from the newest checkpoint\n")
    _, error = plain(LEADER.splitlines(keepends=True), timeout_s=60, join_s=300)
    assert error.startswith("error: process 0, the coordinator, is gone or cannot be reached, so")


def test_a_broken_collective_is_one_line():
    lines = ["before\n", "terminate called after throwing an instance of 'gloo::EnforceNotMet'\n"]
    _, error = plain([*lines, "  what():  [enforce fail]\n"], timeout_s=60, join_s=300)
    assert error.startswith("error: a connection to another process broke; the log of the process")


def test_only_one_says_why_the_process_ends():
    """The service may find out before or after."""
    service = LEADER.splitlines(keepends=True)[1:]
    for lines in (["before\n", SAID, *service], ["before\n", *service, SAID]):
        assert list(plain(lines, timeout_s=60, join_s=300)) == ["before\n"]


def test_lines_of_others_pass_as_they_are():
    lines = ["Traceback\n", "  of ours\n", "E1121 16:44:33.789470 173 pjrt.cc:1] oh\n", "more\n"]
    assert list(plain(lines, timeout_s=60, join_s=300)) == lines
