"""gke.sh: the manifest, and what is refused before kubectl gets it."""

import re
import subprocess

import pytest
import yaml

from tests.scripts.calls import TRAIN, run


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
    # The flags of this clone, past the image's entry point, which would leave them as they are.
    assert container["command"] == ["/polyglot-jax/.venv/bin/python"]
    assert "--xla_enable_async_all_gather=true" in container["env"][0]["value"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tpu=v5p", "--", "--experiment=x"), "--topology are needed"),
        (("--tpu=v3", "--topology=4x4", "--", "--experiment=x"), "--tpu=v3: v4, v5e, v5p or v6e"),
        (("--tpu=v5e", "--topology=4", "--", "--experiment=x"), "as in 4x4 or 4x4x4"),
        (("--tpu=v5e", "--topology=4x4"), "flags of training are missing"),
        *(
            (("--tpu=v5p", f"--topology={given}", "--dry-run", "--", *TRAIN), "as in 4x4 or 4x4x4")
            for given in ("0x4x4", "4x08x4", "4x4x4x4", "4x4x-4", "9999x4")
        ),
        *(
            (("--tpu=v5p", "--topology=4x4x4", given, "--dry-run", "--", *TRAIN), given)
            for given in (
                *("--slices=two", "--slices=0", "--slices=", "--slices=08"),
                *("--restarts=x y", "--restarts=-1", "--restarts=1e3", "--restarts=99999999999"),
            )
        ),
    ],
)
def test_gke_refuses_what_does_not_fit(arguments, message):
    done = gke(*arguments)
    assert done.returncode == 2
    assert re.fullmatch("error: .*\n", done.stderr)
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "restarts"),
    [((), 20), (("--spot",), 1000), (("--spot", "--restarts=7"), 7), (("--restarts=0",), 0)],
)
def test_preemptions_do_not_use_up_the_restarts_of_a_spot_run(arguments, restarts):
    """They count as failures do, and a run of months sees more than twenty."""
    shown = gke("--tpu=v5p", "--topology=4x4x4", *arguments, "--dry-run", "--", *TRAIN).stdout
    assert yaml.safe_load(shown)["spec"]["failurePolicy"] == {"maxRestarts": restarts}
