"""Results: whole or absent, told apart by all that decides them, and refused when strange."""

import csv
import dataclasses
import json

import pytest
from etils import epath

from eval import results
from tests.eval.made import made_result


def test_written_and_read_back(tmp_path):
    result = made_result("kobest_copa", shots=5, name="내 모델")
    path = results.path_of(epath.Path(tmp_path), result.key, result.model)
    results.save(path, result)
    assert results.read(path) == result
    for folder in (tmp_path, tmp_path / "results", path.parent):
        assert results.read_all(epath.Path(folder)) == [result]
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary left


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(results.Key)])
def test_whatever_decides_a_result_decides_its_place(tmp_path, field):
    result = made_result()
    value = getattr(result.key, field)
    other = dataclasses.replace(result.key, **{field: 7 if isinstance(value, int) else f"{value}x"})
    output = epath.Path(tmp_path)
    one, two = (results.path_of(output, key, result.model) for key in (result.key, other))
    assert one != two


def test_other_files_are_no_results(tmp_path):
    (tmp_path / "results" / "m").mkdir(parents=True)
    (tmp_path / "results" / "m" / "notes.json").write_text("{}")
    (tmp_path / "results" / "m" / ".x-0123456789ab.json.tmp").write_text("{")
    assert results.read_all(epath.Path(tmp_path)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a result of eval.run"),
        ("[]", "is not a result of eval.run"),
        ('{"format_version": 1}', "is not a result of eval.run"),
        ('{"format_version": 99}', "has format version 99; this code reads version 1"),
    ],
)
def test_strange_files_are_named(tmp_path, content, message):
    path = epath.Path(tmp_path) / "x-0123456789ab.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        results.read(path)
    assert str(path) in str(error.value)


def test_csv_has_a_line_per_measure():
    result = made_result("kobest_hellaswag", shots=50, run="runs/a", step=100)
    lines = list(csv.DictReader(results.to_csv([result]).splitlines()))
    assert [line["measure"] for line in lines] == ["macro_f1_norm", "acc"]
    assert lines[0]["shots_kept_mean"] == "16.2"
    assert lines[0]["step"] == "100"
    assert float(lines[0]["value"]) == result.value


def test_constant_answers_are_seen():
    assert made_result(constant=1).constant == 1
    assert made_result().constant is None
    assert made_result(constant=-1).constant is None  # nothing valid was generated


def test_compute_needs_size_and_tokens():
    assert made_result().model.flops == pytest.approx(1.702e21, rel=1e-3)
    assert made_result(tokens=None).model.flops is None


def test_json_has_what_a_repetition_needs(tmp_path):
    result = made_result()
    path = epath.Path(tmp_path) / "x-0123456789ab.json"
    results.save(path, result)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert {"key", "model", "seeds", "example", "items", "provenance"} <= content.keys()
    assert {"git_commit", "versions"} <= content["provenance"].keys()
