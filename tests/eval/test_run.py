"""The program: what is measured, what is kept, what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from eval import results, run, tasks
from eval.cache import Cache
from eval.describe import describe
from eval.results import ModelInfo
from tests.eval.fake import FakeModel, write_copa

ROOT = Path(__file__).resolve().parents[2]
INFO = ModelInfo("fake", "/fake")


def plan_of(data, names=("kobest_copa",), **changes):
    options = {
        **{"protocol": "polyglot-2023", "prompts": ["original"], "split": "test"},
        **{"shots": [0, 2], "limit": None, "data": str(data)},
    }
    return run.measurements(tasks.find(names), **options | changes)


def measure(data, output, model, **changes):
    cache = Cache(output / "requests.jsonl")
    plan = plan_of(data, **changes)
    return run.measure_all(model, INFO, plan, cache, epath.Path(output))


def test_results_are_written_and_reused(tmp_path, capsys):
    data, output = write_copa(tmp_path / "data"), tmp_path / "out"
    first = measure(data, output, FakeModel())
    assert [r.key.shots for r in first] == [0, 2]
    assert first[1].shots_kept == {"mean": 2.0, "min": 2.0}
    assert all(len(r.items) == 12 and len(r.items[0]["log_probs"]) == 2 for r in first)
    assert first[0].headline == "macro_f1"
    assert {"jax", "tokenizers"} <= first[0].provenance["versions"].keys()
    again = FakeModel()
    assert measure(data, output, again) == results.read_all(epath.Path(output))
    assert again.asked == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fake: kobest_copa, 0 shots: macro_f1 0.")
    assert lines[-1].endswith("(12 questions, measured before)")


def test_an_interrupt_keeps_what_is_finished(tmp_path):
    data, output = write_copa(tmp_path / "data"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        measure(data, output, FakeModel(stop_after=17))
    assert len(results.read_all(epath.Path(output))) == 1  # the task that was whole
    rest = FakeModel()
    found = measure(data, output, rest)
    assert rest.asked == 24 - 17
    assert found == measure(data, tmp_path / "at_once", FakeModel())


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 5},
        {"split": "train"},
        {"protocol": "lm-eval"},
        {"shots": [3]},
    ],
)
def test_other_options_are_another_result(tmp_path, changes):
    data, output = write_copa(tmp_path / "data"), tmp_path / "out"
    before = measure(data, output, FakeModel(), shots=[0])
    after = measure(data, output, FakeModel(), **{"shots": [0]} | changes)
    assert results.read_all(epath.Path(output)) != before
    assert len(results.read_all(epath.Path(output))) == 2
    assert after[0].key != before[0].key


def test_other_data_is_another_result(tmp_path):
    output = tmp_path / "out"
    measure(write_copa(tmp_path / "one"), output, FakeModel())
    data = write_copa(tmp_path / "two")
    file = data / "COPA" / "test.tsv"
    file.write_text(file.read_text(encoding="utf-8").replace("떡", "밥"), encoding="utf-8")
    measure(data, output, FakeModel())
    assert len(results.read_all(epath.Path(output))) == 4


def test_prompts_that_a_task_lacks_are_left_out_and_equal_ones_asked_once(tmp_path):
    plan = plan_of(tmp_path, ["kobest"], prompts=["original", "modified"], shots=[0])
    asked = [(task.name, how.prompt) for task, how in plan]
    assert ("kobest_sentineg", "modified") in asked
    assert ("kobest_copa", "modified") not in asked  # the same words
    for words in (["modfied"], ["original", "modfied"]):
        with pytest.raises(ValueError, match="have no prompt 'modfied', only: modified, original"):
            plan_of(tmp_path, prompts=words)
    with pytest.raises(ValueError, match="klue_nli has no prompt 'modified', only: original"):
        plan_of(tmp_path, ["kobest", "klue_nli"], prompts=["modified"])


def test_words_that_are_no_numbers():
    assert run.shot_counts(["5", "0", "5"]) == [0, 5]
    with pytest.raises(ValueError, match="--shots=5,many: 'many' is not a number of shots"):
        run.shot_counts(["5", "many"])
    with pytest.raises(ValueError, match="no protocol 'x'; there are polyglot-2023, lm-eval"):
        plan_of("x", protocol="x")


def test_describing_what_is_no_model(tmp_path):
    with pytest.raises(ValueError, match="is neither a directory that transformers loads"):
        describe(str(tmp_path))


def program(*flags):
    command = [sys.executable, "-m", "eval.run", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--output={tmp}", "--model={tmp}"), "give --tasks=NAME,..."),
        (("--output={tmp}", "--model={tmp}/none", "--tasks=kobest"), "is neither a directory"),
    ],
)
def test_bad_input_is_one_line(tmp_path, flags, message):
    done = program(*(flag.format(tmp=tmp_path) for flag in flags))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message.format(tmp=tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1
