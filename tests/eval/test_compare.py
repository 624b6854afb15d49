"""Comparing two runs: paired questions, corrected p-values, one line for what cannot be paired."""

import dataclasses

import pytest
from etils import epath

from eval import compare, results
from tests.eval.made import made_result


def made_outcomes(result, predictions):
    """Returns the result with the fields that `metrics.compare` looks at."""
    items = [
        {
            **{"row": i, "gold": i % 2, "predicted": p, "prediction": p, "predicted_norm": p},
            **{"group": [], "size": [0.0, 0, 0]},
        }
        for i, p in enumerate(predictions)
    ]
    return dataclasses.replace(result, items=items)


GOLD = [i % 2 for i in range(200)]
GOOD = [g if i % 10 else 1 - g for i, g in enumerate(GOLD)]  # nine of ten right
BAD = [g if i % 3 else 1 - g for i, g in enumerate(GOLD)]  # two of three right


def test_a_clear_difference_is_significant_and_equal_runs_are_not():
    a = made_outcomes(made_result(name="a"), BAD)
    b = made_outcomes(made_result(name="b"), GOOD)
    (pair,) = compare.compare_runs([a], [b])
    assert pair.measure == "macro_f1"
    assert pair.difference.value > 0.2
    assert pair.adjusted_p < 0.001
    (same,) = compare.compare_runs([a], [a])
    assert same.difference.value == 0
    assert same.adjusted_p == 1
    (back,) = compare.compare_runs([b], [a])
    assert back.difference.value == pytest.approx(-pair.difference.value)


def test_only_the_same_questions_are_paired():
    a = made_outcomes(made_result(name="a"), BAD)
    other = dataclasses.replace(a, key=dataclasses.replace(a.key, questions="1" * 32))
    with pytest.raises(ValueError, match="share no measurement"):
        compare.compare_runs([a], [other])


def test_one_model_by_two_engines_is_not_mixed():
    a = made_outcomes(made_result(name="a"), BAD)
    torch = dataclasses.replace(a, key=dataclasses.replace(a.key, engine="torch float32"))
    for runs in (([a, torch], [a]), ([a], [torch, a])):
        with pytest.raises(ValueError, match=r"0 shots, was measured by two engines \(.*torch"):
            compare.compare_runs(*runs)


def test_holm_by_hand():
    assert compare.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert compare.holm([0.9, 0.8]) == [1.0, 1.0]
    assert compare.holm([]) == []


def test_folders(tmp_path, capsys):
    paths = []
    for name, predictions in (("a", BAD), ("b", GOOD)):
        made = made_outcomes(made_result(name=name), predictions)
        path = results.path_of(epath.Path(tmp_path), made.key, made.model)
        results.save(path, made)
        paths.append(str(path.parent))
    compare.program(paths)
    printed = capsys.readouterr().out
    assert "| kobest_boolq | original | 0 | 200 | macro_f1 |" in printed
    assert "< 0.0002 |" in printed
    assert "| yes |" in printed
    with pytest.raises(ValueError, match="holds results of 2 models"):
        compare.program([str(tmp_path), paths[0]])
    with pytest.raises(ValueError, match="no folder"):
        compare.program([str(tmp_path / "absent"), paths[0]])
    with pytest.raises(ValueError, match="name two folders"):
        compare.program(paths[:1])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="no results in"):
        compare.program([str(empty), paths[0]])
