"""Running the scripts for users against stand-ins for the clouds."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ("--experiment=ko_12p8b", "--workdir=gs://b/run", "--set=a.b='c d'")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def calls(log: Path) -> list[list[str]]:
    return [call.split("\x1f")[:-1] for call in log.read_text().split("\n\x1f")[:-1]]
