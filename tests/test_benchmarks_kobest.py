"""The KOBEST benchmark: its table, its check that both sides compute the same, and a whole run."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import kobest
from polyglot_jax.config import load_experiment
from tests.tiny_tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]


def rows(*seconds: float, shift: float = 0.0) -> list[dict]:
    log_probs = [[-1.0 + shift, -2.0], [-3.0, -4.0]]
    return [{"seconds": s, "peak_bytes": 2**20, "log_probs": log_probs} for s in seconds]


def test_a_line_a_side_without_the_first_round() -> None:
    timed = {kobest.OURS: rows(9, 1, 2, 4), "lm-eval, batch 1": rows(9, 4, 4, 4)}
    ours, theirs = kobest.task_lines("kobest_copa", 128.4, timed)
    assert ours[:4] == ["kobest_copa, 128 tokens an item", "polyglot-jax", "1.00", "0.50 to 2.00"]
    assert theirs[2:] == ["0.50", "0.50 to 0.50", "9.0", "1", "2.00 (1.00 to 4.00)"]
    assert len(ours) == len(theirs) == len(kobest.COLUMNS)


def test_other_log_probabilities_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(function: str, arguments: dict):
        yield from rows(1, 1, shift=0.5 * arguments["batch_size"])

    monkeypatch.setattr(kobest.child, "rows", made)
    sides = {kobest.OURS: ("ours", 0), "lm-eval, batch 1": ("lm_eval", 1)}
    with pytest.raises(
        ValueError, match=r"other log-probabilities than polyglot-jax, by up to 0\.5"
    ):
        kobest.measure(sides, Path("model"), Path("requests"), rounds=1)


@pytest.mark.slow
def test_a_whole_run(tmp_path: Path, shared_data: Path) -> None:
    """Of a tiny shape; what it would append goes to a copy of the results."""
    pytest.importorskip("lm_eval")
    train_tokenizer(300).save(str(tmp_path / "tokenizer.json"))
    assert load_experiment("ko_tiny").model.vocab_size > 300
    program = (
        "import sys, runpy; from pathlib import Path; from benchmarks import record;"
        f"new = Path({str(tmp_path / 'RESULTS.md')!r}); new.write_text('# Results\\n');"
        "old = record.append_section; record.append_section = lambda text: old(text, new);"
        "sys.argv[0] = 'kobest'; runpy.run_module('benchmarks.kobest', run_name='__main__')"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", program, "--shape=ko_tiny", "--items=3", "--rounds=1"),
            *("--shots=0", "--task=kobest_copa", "--batch_size=2"),
            *(f"--data={shared_data / 'kobest_v1'}", f"--tokenizer={tmp_path / 'tokenizer.json'}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = (tmp_path / "RESULTS.md").read_text()
    assert "| polyglot-jax |" in results
    assert "| lm-eval, batch 2 |" in results
