"""Whether the processes of a run start the same run."""

import copy

import pytest
from etils import epath

from polyglot_jax import distributed, preflight, workdirs
from tests.runs import STEPS, experiment


def test_a_run_is_described_and_what_describes_none_is_told(whole_run, tiny_shards, tmp_path):
    assert workdirs.described(whole_run).train == experiment(tiny_shards).train
    assert workdirs.described(tmp_path) is None
    (tmp_path / "config.json").write_text('{"architectures": ["GPTNeoXForCausalLM"]}')
    assert workdirs.described(tmp_path) is None
    for text in ("", "[1]", '{"experiment": {"data": 1}}', '{"experiment": 3}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"config\.json does not describe a run: "):
            workdirs.described(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda first: first.update(checkpoint=12),
            "another checkpoint than process 0 .24, pro.*2",
        ),
        (
            lambda first: first["optimizer"].update(b1=0.5),
            "another optimizer than process 0: start",
        ),
        (lambda first: first["data"].update(seq_len=64), "another data than process 0: start all"),
        (lambda first: first["health"].update(on_spike="x"), "another health than process 0: st"),
    ],
)
def test_processes_that_differ_end_in_one_line(whole_run, tiny_shards, monkeypatch, spoil, message):
    """Otherwise they wait for each other forever, or train on something else each."""
    one = experiment(tiny_shards)
    data = preflight.check(one, epath.Path(whole_run), STEPS).fingerprint
    assert workdirs.check_start(one, epath.Path(whole_run), data) == STEPS

    def agreed(value):
        first = copy.deepcopy(value)
        spoil(first)
        return first

    monkeypatch.setattr(distributed, "agreed", agreed)
    with pytest.raises(ValueError, match=message):
        workdirs.check_start(one, epath.Path(whole_run), data)
