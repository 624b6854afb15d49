"""The report and the published numbers beside it."""

import base64
import dataclasses
import re

import pytest
from etils import epath

from eval import figures, page, published, results, tables
from tests.eval.made import CLASSES, made_result

FOUR = (0, 5, 10, 50)


@pytest.fixture(scope="module")
def many():
    made = [
        made_result(task, shots=shots, name=name, run=run, step=step)
        for task in CLASSES
        for shots in FOUR
        for name, run, step in (("polyglot-ko-1.3b", None, None), ("실험", "runs/실험", 200))
    ]
    made += [made_result(shots=shots, name="실험", run="runs/실험", step=100) for shots in FOUR]
    made += [made_result("kobest_sentineg", prompt="modified", shots=5)]
    return made


def test_published_numbers_are_all_there():
    cells = published.kobest()
    assert len(cells) == 169
    assert len({cell.model for cell in cells}) == 7
    assert sorted((c.model[-4:], c.task, c.value) for c in cells if c.suspicious) == [
        ("1.3b", "kobest_boolq", 0.4038),
        ("1.3b", "kobest_sentineg", 0.7851),
        ("3.8b", "kobest_boolq", 0.4038),
        ("3.8b", "kobest_sentineg", 0.7851),
    ]
    original = [c for c in cells if c.prompt == "original" and c.metric != "acc"]
    assert len(original) == 7 * 5 * 4
    norm = {c.task for c in cells if c.metric == "macro_f1_norm"}
    assert norm == {"kobest_hellaswag"}


def test_constant_answers_of_the_published_models():
    found = [
        (c.model, c.task, c.shots, published.constant_answer(c))
        for c in published.kobest()
        if published.constant_answer(c)
    ]
    xglm = "facebook/xglm-7.5B"
    assert found == [
        *((xglm, "kobest_boolq", shots, "아니오") for shots in (5, 10, 50)),
        (xglm, "kobest_wic", 0, "예"),
    ]


def test_training_compute_is_the_paper_s():
    values = [f"{flops:.2e}" for flops in published.training_flops().values()]
    assert values == ["1.70e+21", "5.01e+21", "6.07e+21", "1.29e+22"]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("polyglot-ko-1.3b", "EleutherAI/polyglot-ko-1.3b"),
        ("EleutherAI_polyglot-ko-12.8b", "EleutherAI/polyglot-ko-12.8b"),
        ("kogpt", "kakaobrain/kogpt"),
        ("my-polyglot-ko-1.3b", None),
        ("polyglot-ko-1.3b-tuned", None),
        ("", None),
    ],
)
def test_counterparts_by_name(name, model):
    assert published.counterpart(name) == model


def test_differences_only_of_what_was_measured_alike():
    found = tables.difference(made_result(shots=5))
    assert found.published.value == 0.4751
    assert found.value == pytest.approx(made_result(shots=5).value - 0.4751)
    for other in (
        made_result(shots=5, split="dev"),
        made_result(shots=5, limit=10),
        made_result(shots=5, protocol="lm-eval"),
        made_result(shots=7),
        made_result(shots=50),  # a suspicious cell
        made_result("klue_nli"),
    ):
        assert tables.difference(other) is None
    near = tables.difference(made_result(shots=5, name="other", parameters=5_000_000_000))
    assert near.published.model == "EleutherAI/polyglot-ko-5.8b"


def test_table_marks_constants_shots_left_and_doubtful_cells():
    own = [made_result(shots=0, constant=0), made_result(shots=50)]
    header, rows = tables.task_table(tables.group_of(own[0]), own)
    assert header == ["macro-F1", "0 shots", "5 shots", "10 shots", "50 shots"]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["facebook/xglm-7.5B"][1] == "0.3324 (= 아니오)"
    assert by_name["EleutherAI/polyglot-ko-3.8b"][3] == "0.4038 (?)"
    assert by_name["polyglot-ko-1.3b"][0].endswith("(= 아니오)")
    assert by_name["polyglot-ko-1.3b"][1:3] == ["", ""]
    assert by_name["— whole shots left"] == ["", "", "", "16.2 (least 11)"]
    deltas = by_name["— minus EleutherAI/polyglot-ko-1.3b"]
    assert re.fullmatch(r"[+-]0\.\d{4} ± 0\.\d{3}", deltas[0])
    assert deltas[3] == ""


def test_models_of_one_name_are_told_apart():
    one = made_result()
    two = dataclasses.replace(one, key=dataclasses.replace(one.key, model="another"))
    names = [tables.label(r) for r in tables.distinct([one, two])]
    assert len(set(names)) == 2
    assert all(name.startswith("polyglot-ko-1.3b (") for name in names)
    assert tables.distinct([one]) == [one]


def test_only_the_newest_checkpoint_is_in_the_tables(many):
    steps = {r.model.step for r in tables.newest(many) if r.model.run}
    assert steps == {200}


def test_best_checkpoints_are_those_within_an_error():
    def at(value, headline="macro_f1"):
        measures = {headline: {"value": value, "stderr": 0.02}}
        return dataclasses.replace(made_result(), measures=measures, headline=headline)

    low, middle, high = at(0.50), at(0.59), at(0.60)
    assert tables.best([low, middle, high]) == [middle, high]
    low, middle, high = (at(value, "bits_per_byte") for value in (1.00, 1.01, 1.10))
    assert tables.best([low, middle, high]) == [low, middle]


def test_files_of_the_report(many, tmp_path):
    output = epath.Path(tmp_path)
    for r in many:
        results.save(results.path_of(output, r.key, r.model), r)
    path = page.write(output)
    html = path.read_text(encoding="utf-8")
    assert path.name == "index.html"
    for words in ("실험 @ step 200", "Learning curve of runs/실험", "두 문장에서 &lt;배&gt;가"):
        assert words in html
    images = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]+)"', html)
    assert len(images) == 5  # the paper's three, differences, learning curve
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for _, data in images)
    assert "http" not in re.sub(r"data:[^\"]+", "", html)  # needs nothing from elsewhere
    markdown = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| macro-F1 | 0 shots |" in markdown
    assert (tmp_path / "results.csv").read_text(encoding="utf-8").startswith("model,step,")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("index.html", "results", "results.csv", "results.md"),
    ]


def test_nothing_measured_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="no results in"):
        page.write(epath.Path(tmp_path))


def test_figures_have_every_series(many):
    drawn = figures.few_shot(tables.newest(many), figures.ORIGINAL, 3)
    titles = [axis.get_title() for axis in drawn.axes]
    assert titles[:5] == ["BoolQ", "COPA", "HellaSwag", "SentiNeg", "WiC"]
    legend = [text.get_text() for text in drawn.axes[5].get_legend().get_texts()]
    assert legend[:7] == list(figures.STYLES)
    assert "실험 @ step 200" in legend
    assert legend[-1] == "best constant answer"


def test_korean_names_have_glyphs(many, recwarn):
    drawn = figures.few_shot(tables.newest(many), figures.ORIGINAL, 3)
    drawn.canvas.draw()
    assert not [w for w in recwarn if "missing from" in str(w.message)]
