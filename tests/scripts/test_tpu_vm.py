"""tpu_vm.sh against a stand-in for gcloud, and for a worker of a slice."""

import re
import shlex
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.scripts.calls import ROOT, TRAIN, calls, run

# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources, its pages
GCLOUD = {
    "create": {
        *("--zone", "--project", "--accelerator-type", "--runtime-version", "--node-id"),
        *("--node-count", "--node-prefix", "--spot"),
    },
    "describe": {"--zone", "--project", "--format"},
    "scp": {"--zone", "--project", "--node", "--worker"},
    "ssh": {"--zone", "--project", "--node", "--worker", "--command"},
    "delete": {"--zone", "--project", "--force", "--quiet"},
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """Where the scripts keep their locks."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def tpu_vm(command: str, *more: str) -> subprocess.CompletedProcess[str]:
    return run("scripts/tpu_vm.sh", command, "--name=ko", "--zone=us-east5-a", *more)


def calls_of(log: Path) -> list[list[str]]:
    made = calls(log)
    for call in made:
        assert call[:3] == ["compute", "tpus", "queued-resources"]
        flags = {word.partition("=")[0] for word in call if word.startswith("--")}
        assert flags <= GCLOUD[call[3]], call
    return [call[3:] for call in made]


def test_a_slice_is_asked_for_and_awaited(stand_in, tmp_path):
    """The state is asked for until the slice is there."""
    stand_in("sleep")
    body = f"""
[[ $4 != describe ]] && exit
case $(grep -c describe {tmp_path}/gcloud.log) in 1) echo ACCEPTED;; 2) echo PROVISIONING;;
*) echo ACTIVE;; esac"""
    log = stand_in("gcloud", body)
    done = tpu_vm("create", "--type=v5p-128", "--spot", "--project=p")
    assert done.returncode == 0, done.stderr
    create, *described = calls_of(log)
    assert create == [
        *("create", "ko", "--node-id=ko", "--accelerator-type=v5p-128"),
        *("--runtime-version=v2-alpha-tpuv5", "--spot", "--zone=us-east5-a", "--project=p"),
    ]
    assert [call[0] for call in described] == ["describe"] * 3


@pytest.mark.parametrize(
    ("state", "commands"),
    [
        ("ACTIVE", ["ssh", "ssh"]),  # is it set up? Where it runs still, the workers leave it alone
        *((state, []) for state in ("CREATING", "ACCEPTED", "PROVISIONING", "DELETING")),
        ("FAILED", ["delete", "create", "scp", "ssh", "ssh"]),
        ("SUSPENDED", ["delete", "create", "scp", "ssh", "ssh"]),
        ("", ["create", "scp", "ssh", "ssh"]),
    ],
)
def test_resume_does_what_is_needed(stand_in, tmp_path, state, commands):
    stand_in("sleep")
    body = f"""
[[ $4 == create ]] && touch {tmp_path}/made
[[ $4 != describe ]] && exit
[[ -e {tmp_path}/made ]] && echo ACTIVE && exit
[[ '{state}' ]] && echo {state} || exit 1"""
    log = stand_in("gcloud", body)
    done = tpu_vm("resume", "--type=v6e-256", "--slices=2", "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    made = [call for call in calls_of(log) if call[0] != "describe"]
    assert [call[0] for call in made] == commands
    for call in made:
        if call[0] == "create":
            assert {"--node-count=2", "--node-prefix=ko"} < set(call)
        if call[0] in ("scp", "ssh"):
            assert {"--node=all", "--worker=all"} < set(call)
    if commands:  # what the workers run is shell itself: the flags arrive there as they were given
        program = next(w for w in made[-1] if w.startswith("--command=")).partition("=")[2]
        (start,) = re.findall(r"polyglot_jax\.train (.*?) *>>", program)
        assert shlex.split(start) == ["--coordinator=auto", *TRAIN]
        assert run("bash", "-n", "-c", program).returncode == 0


@pytest.fixture
def worker(stand_in, tmp_path) -> Path:
    """The home of the one worker of an active slice, where what it is told runs.

    What installs there does nothing, but `apt-get` fails while the file `locked` exists.
    """
    worker = tmp_path / "worker"
    programs = {
        ".local/bin/uv": "",
        "bin/gcloud": f"printf '%s\\n' \"$@\" >>{worker}/gcloud.txt",
        "python": "",
    }
    for name, body in programs.items():
        (worker / name).parent.mkdir(parents=True, exist_ok=True)
        (worker / name).write_text(f"#!/bin/bash\n{body}\n")
        (worker / name).chmod(0o755)
    stand_in("sudo", f"[[ ! -e {worker}/locked ]] || exit 100")
    stand_in("python3")
    stand_in("make", f"mkdir -p .venv/bin; cp {worker}/python .venv/bin")
    body = f"""
case $1 in
  bundle) touch "$4" ;;
  init) mkdir -p polyglot-jax; cp -r {ROOT}/scripts polyglot-jax ;;
esac"""
    stand_in("git", body)
    body = f"""
case $4 in
  describe) echo ACTIVE ;;
  scp) cp "$5" {worker}/polyglot-jax.bundle ;;
  ssh) for word; do [[ $word != --command=* ]] || command=${{word#*=}}; done
    cd {worker} && HOME={worker} PATH={worker}/bin:$PATH bash -c "$command" ;;
esac"""
    stand_in("gcloud", body)
    return worker


def resume(*more: str) -> subprocess.CompletedProcess[str]:
    return tpu_vm("resume", "--type=v5p-8", *more, "--", *TRAIN)


def test_nothing_starts_where_nothing_is_installed(worker):
    """It was a success, with a process that had ended, in a folder that was not the clone."""
    done = tpu_vm("run", "--", *TRAIN)
    assert done.returncode != 0
    assert "this worker is not set up: scripts/tpu_vm.sh setup" in done.stderr
    assert not list(worker.rglob("train.pid"))


def test_a_setup_that_broke_is_made_again(worker, tmp_path, monkeypatch):
    """The slice is ACTIVE all the same: every later resume only started training."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (worker / "locked").touch()
    assert resume().returncode != 0
    assert not list(worker.rglob("train.pid"))
    (worker / "locked").unlink()
    done = resume()
    assert done.returncode == 0, done.stderr
    assert (worker / "polyglot-jax" / "train.pid").exists()
    made = [call[0] for call in calls_of(tmp_path / "gcloud.log")]
    once = ["describe", "ssh", "scp", "ssh"]
    assert made == [*once, *once, "ssh"]
    assert not list((tmp_path / "temporary").iterdir())  # the bundle of the clone

    (worker / "locked").touch()
    assert resume().returncode == 0  # set up: no packages are asked for
    assert tpu_vm("setup").returncode != 0
    assert tpu_vm("run", "--", *TRAIN).returncode != 0  # half of an older and half of a newer one


def test_workers_that_do_not_answer_are_left_alone(stand_in, tmp_path):
    """They may train: no setup under them."""
    log = stand_in("gcloud", "[[ $4 == describe ]] && echo ACTIVE && exit; exit 255")
    done = resume()
    assert done.returncode == 2
    assert done.stderr == "error: the workers of ko do not answer (exit code 255)\n"
    assert [call[0] for call in calls_of(log)] == ["describe", "ssh"]


def test_weights_reach_the_workers(worker):
    assert tpu_vm("setup", "--weights=gs://b/hf/ko 1").returncode == 0
    called = (worker / "gcloud.txt").read_text().splitlines()
    assert called == ["storage", "rsync", "--recursive", "gs://b/hf/ko 1", "hf/ko 1"]
    assert (worker / "polyglot-jax" / "hf" / "ko 1").is_dir()


def test_two_calls_do_not_work_on_one_slice(stand_in, tmp_path):
    """Cron calls resume while the one before it is still installing."""
    waits = f"touch {tmp_path}/began; while [[ ! -e {tmp_path}/go ]]; do sleep 0.05; done"
    log = stand_in("gcloud", f"{waits}; [[ $4 != describe ]] || echo ACTIVE")
    start = ("scripts/tpu_vm.sh", "resume", "--name=ko", "--zone=us-east5-a", "--type=v5p-8")
    with subprocess.Popen([*start, "--", *TRAIN], cwd=ROOT, stdout=-1) as first:
        while not (tmp_path / "began").exists():
            time.sleep(0.01)
        second, by_hand = resume(), tpu_vm("setup")
        assert len(calls_of(log)) == 1
        (tmp_path / "go").touch()
    assert first.returncode == 0
    assert (second.returncode, second.stdout) == (0, "another call is at work on ko\n")
    assert (by_hand.returncode, by_hand.stderr) == (2, "error: another call is at work on ko\n")
    assert resume().returncode == 0  # the lock ends with its holder


def test_stop_returns_when_the_checkpoint_is_there(stand_in, tmp_path):
    """Since BUILD.md deletes the slice next."""
    log = stand_in("gcloud")
    assert tpu_vm("stop").returncode == 0
    (call,) = calls_of(log)
    (command,) = (word.partition("=")[2] for word in call if word.startswith("--command="))
    (tmp_path / "polyglot-jax").mkdir()
    saving = f"trap '/bin/sleep 0.3; touch {tmp_path}/saved; exit' TERM; read -t 60 <> <(:)"
    with subprocess.Popen(["bash", "-c", f"echo started; {saving}"], stdout=-1) as training:
        assert training.stdout.readline() == b"started\n"
        (tmp_path / "polyglot-jax" / "train.pid").write_text(str(training.pid))
        (tmp_path / "polyglot-jax" / "train.log").write_text("SIGTERM: step 7 is saved\n")
        threading.Thread(target=training.wait).start()  # or it would stay as a zombie
        time.sleep(0.1)  # it has started before it traps
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True)
        assert (tmp_path / "saved").exists()
    assert done.stdout == b"SIGTERM: step 7 is saved\n"


@pytest.mark.parametrize("state", ["SUSPENDED", "DELETING", "NONE"])
def test_a_slice_that_is_lost_while_it_is_awaited_ends_the_wait(stand_in, state):
    stand_in("gcloud", f"[[ $4 != describe ]] || echo {state}")
    done = tpu_vm("create", "--type=v5p-128")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: the request is {state}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create",), "create needs --type"),
        (("create", "--type=h100-8"), "name its --runtime"),
        (("create", "--type=v5p-8", "--slices=two"), "--slices=two: a number from 1 on"),
        (("setup", "--weights=hf/ko"), "--weights=hf/ko: as in gs://BUCKET/NAME"),
        (("run",), "needs the flags of training"),
        (("resume", "--type=v5p-8"), "needs the flags of training"),  # and deletes nothing
        (("resume", "--", "--experiment=x"), "resume needs --type"),
        (("run", "--experiment=x"), "unknown option --experiment=x"),
    ],
)
def test_tpu_vm_refuses_what_does_not_fit(stand_in, arguments, message):
    log = stand_in("gcloud")
    done = tpu_vm(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not log.exists()
