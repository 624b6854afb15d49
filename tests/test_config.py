"""Experiments: loading, overrides, validation, and the two ways of writing them down."""

import dataclasses
import json
from pathlib import Path

import pytest

from polyglot_jax import config
from polyglot_jax.config import Experiment, load_experiment, override
from tests.test_experiments import to_text

TINY = load_experiment("ko_tiny")


def test_loads_by_path_what_it_loads_by_name() -> None:
    path = Path(config.__file__).resolve().parents[1] / "experiments" / "ko_tiny.py"
    assert load_experiment(str(path)) == TINY


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "ko_tinny",
            r"unknown experiment 'ko_tinny'; did you mean ko_tiny.*known: east_asian_1p3b",
        ),
        ("__init__", "unknown experiment '__init__'"),
        ("../experiments/ko_tiny", "unknown experiment"),
        ("", "unknown experiment ''"),
        ("none.py", "no experiment file 'none.py'"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_experiment(name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("experiment = 3", "must define experiment"),
        ("", "must define experiment"),
        ("experiment = (", r"mine\.py: SyntaxError"),
        ("import not_there", r"mine\.py: ModuleNotFoundError: No module named 'not_there'"),
        ("from polyglot_jax.config import MeshConfig\nMeshConfig(dta=2)", r"mine\.py: .*'dta'"),
    ],
)
def test_faulty_files_are_named(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=message):
        load_experiment(str(path))


def test_overrides_apply_in_order_and_leave_the_original() -> None:
    changed = load_experiment("ko_tiny", ["train.steps=7", "train.steps=1_000", "mesh.data=none"])
    assert changed.train.steps == 1000
    assert changed == dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, steps=1000))
    assert load_experiment("ko_tiny") == TINY


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("name=ko=tiny", "ko=tiny"),
        ("train.steps=1e5", 100_000),
        ("train.init_from=/models/a b", "/models/a b"),
        ("train.init_from=None", None),
        ("train.eval_every=none", None),
        ("train.eval_every=20", 20),
        ("optimizer.learning_rate=1", 1.0),
        ("data.plan.0.sources.0.path=gs://bucket/ko", "gs://bucket/ko"),
        ("data.plan.0.sources.0.weight=0.25", 0.25),
        ("data.plan.0.skipped=[[2, 4], [9, 12]]", ((2, 4), (9, 12))),
    ],
)
def test_overrides_are_typed(item: str, value: object) -> None:
    node: object = override(TINY, [item])
    for key in item.partition("=")[0].split("."):
        node = node[int(key)] if isinstance(node, tuple) else getattr(node, key)
    assert node == value
    assert type(node) is type(value)


def test_a_whole_plan_can_be_given_as_json() -> None:
    plan = [{"sources": [{"path": "a"}]}, {"from_step": 9, "sources": [{"path": "b", "weight": 2}]}]
    changed = override(TINY, [f"data.plan={json.dumps(plan)}", "data.plan.1.skipped=[[1, 2]]"])
    assert [phase.from_step for phase in changed.data.plan] == [0, 9]
    assert changed.data.plan[1].sources == (config.SourceConfig(path="b", weight=2.0),)
    assert override(changed, ["data.plan.1.skipped.0=[3, 5]"]).data.plan[1].skipped == ((3, 5),)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("train.steps", "expected a.b=value"),
        ("=3", "unknown key ''"),
        ("trian.steps=3", "unknown key 'trian'; did you mean train"),
        ("train.stesp=3", "unknown key 'stesp'; did you mean steps"),
        ("model.family=byt5", "unknown key 'family'"),
        ("model.head_dim=3", "unknown key 'head_dim'"),
        ("name.first=a", "'ko_tiny' has nothing named 'first'"),
        ("mesh.data.x=3", "None has nothing named 'x'"),
        ("train.steps=", "expected int, got ''"),
        ("train.steps=many", "expected int, got 'many'"),
        ("train.steps=1.5", "expected int, got 1.5"),
        ("train.steps=true", "expected int, got True"),
        ("train.steps=none", "expected int, got None"),
        ("optimizer.learning_rate=fast", "expected float, got 'fast'"),
        ("data.plan.1.seed=3", "'1' is not an index below 1"),
        ("data.plan.first.seed=3", "'first' is not an index below 1"),
        ("data.plan.0.skipped=3", "expected a list, got 3"),
        ("data.plan.0.skipped=[[1, 2, 3]]", "expected 2 values"),
        ('data.plan.0.sources=[{"pth": "a"}]', "unknown key 'pth'; did you mean path"),
        ('data.plan.0.sources=[{"weight": 1}]', "missing key 'path'"),
        ("mesh=3", "expected the fields of MeshConfig, got 3"),
    ],
)
def test_faulty_overrides_name_themselves(item: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        override(TINY, [item])
    assert str(caught.value).startswith(f"--set {item}")
    assert "\n" not in str(caught.value)


FAULTS = [  # overrides of ko_tiny, and how the complaint begins
    *[
        (f"{field}={text}", f"{field}={text}: must be above 0")
        for text in ("0", "-1")
        for field in (
            *("model.vocab_size", "model.num_layers", "model.d_model", "model.num_heads"),
            *("model.d_ff", "model.max_seq_len", "data.seq_len", "optimizer.decay_steps"),
            *("train.steps", "train.batch_size", "train.accumulation", "train.log_every"),
            *("train.eval_every", "train.eval_sequences", "train.checkpoint_every"),
            *("train.keep_checkpoints", "mesh.data", "mesh.fsdp", "mesh.tensor"),
        )
    ],
    *[
        (f"{field}=-0.5", f"{field}=-0.5: must be above 0")
        for field in (
            *("model.rotary_base", "model.layer_norm_eps", "optimizer.learning_rate"),
            *("optimizer.clip_norm", "optimizer.eps"),
        )
    ],
    ("model.activation=relu", "model.activation='relu': choose one of gelu, gelu_tanh"),
    ("model.init=xavier", "model.init='xavier': choose one of"),
    ("model.compute_dtype=float16", "model.compute_dtype='float16': choose one of"),
    ("model.attention=flash", "model.attention='flash': choose one of"),
    ("model.remat=some", "model.remat='some': choose one of"),
    ("optimizer.schedule=linear", "optimizer.schedule='linear': choose one of"),
    ("optimizer.learning_rate=NaN", "optimizer.learning_rate=nan: must be a finite number"),
    ("optimizer.learning_rate=Infinity", "optimizer.learning_rate=inf: must be a finite number"),
    ("model.rotary_pct=NaN", "model.rotary_pct=nan: must be a finite number"),
    ("model.num_heads=5", "model.d_model=256 is not divisible by model.num_heads=5"),
    ("mesh.tensor=8", "model.num_heads=4 is not divisible by mesh.tensor=8"),
    ("mesh.fsdp=3", "model.d_model=256 is not divisible by mesh.fsdp=3"),
    ("train.accumulation=3", "train.batch_size=8 is not divisible by train.accumulation=3"),
    (
        "mesh.data=3",
        "train.batch_size / train.accumulation=8 is not divisible by mesh.data * mesh",
    ),
    ("model.rotary_pct=0.01", "model.rotary_pct=0.01: rotates 0 of 64 dims"),
    ("model.rotary_pct=0.05", "model.rotary_pct=0.05: rotates 3 of 64 dims"),
    ("model.rotary_pct=1.5", "model.rotary_pct=1.5: rotates 96 of 64 dims"),
    ("data.seq_len=257", "data.seq_len=257 is more than model.max_seq_len=256"),
    ("optimizer.min_learning_rate=-0.1", "optimizer.min_learning_rate=-0.1: must lie between"),
    ("optimizer.min_learning_rate=0.1", "optimizer.min_learning_rate=0.1: must lie between"),
    ("optimizer.warmup_fraction=1", "optimizer.warmup_fraction=1.0: must be at least 0 and below"),
    ("optimizer.warmup_fraction=-0.1", "optimizer.warmup_fraction=-0.1: must be at least 0"),
    ("optimizer.b1=1", "optimizer.b1=1.0: must be at least 0 and below 1"),
    ("optimizer.b2=-0.1", "optimizer.b2=-0.1: must be at least 0 and below 1"),
    ("optimizer.weight_decay=-0.1", "optimizer.weight_decay=-0.1: must not be negative"),
    ("optimizer.trainable=(", "optimizer.trainable='(' is not a regular expression"),
    ("train.seed=-1", "train.seed=-1: must fit 32 bits"),
    ("train.seed=4294967296", "train.seed=4294967296: must fit 32 bits"),
    ("data.plan=[]", "data.plan is empty"),
    ("data.plan.0.from_step=1", "data.plan: from_step is [1]; the first must be 0"),
    (
        'data.plan=[{"sources":[{"path":"a"}]},{"sources":[{"path":"a"}]}]',
        "data.plan: from_step is [0, 0]; the first must be 0 and each later one larger",
    ),
    ("data.plan.0.sources=[]", "data.plan.0.sources is empty"),
    (
        'data.plan.0.sources=[{"path":"a"},{"path":"a"}]',
        "data.plan.0.sources: a path is named twice in ['a', 'a']",
    ),
    (
        "data.plan.0.sources.0.weight=0",
        "data.plan.0: weight 0.0 of 'quickstart/sample/shards' must be",
    ),
    ("data.plan.0.sources.0.weight=NaN", "data.plan.0: weight nan of"),
    ("data.plan.0.seed=-1", "data.plan.0.seed=-1: must fit 32 bits"),
    ("data.plan.0.skipped=[[-1, 2]]", "data.plan.0.skipped=((-1, 2),): must be rising"),
    ("data.plan.0.skipped=[[2, 2]]", "data.plan.0.skipped=((2, 2),): must be rising"),
    ("data.plan.0.skipped=[[1, 4], [3, 5]]", "data.plan.0.skipped=((1, 4), (3, 5)): must be"),
]


@pytest.mark.parametrize(("item", "message"), FAULTS)
def test_fields_that_do_not_fit_are_refused(item: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared below)
        override(TINY, [item])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["model.d_ff", "model.vocab_size"])
def test_tensor_parallel_splits_evenly(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}=4098 is not divisible by mesh.tensor=4"):
        override(TINY, ["mesh.tensor=4", f"{field}=4098"])


def test_edges_of_the_rules_are_allowed() -> None:
    override(TINY, ["optimizer.min_learning_rate=0", "optimizer.warmup_fraction=0"])
    override(TINY, ["model.rotary_pct=1", "train.seed=4294967295", "mesh.data=8"])
    override(TINY, ["data.plan.0.skipped=[[0, 4], [4, 5]]", "optimizer.trainable=head.*"])


@pytest.mark.parametrize("name", ["ko_tiny", "ko_12p8b"])
def test_dict_round_trip_through_json(name: str) -> None:
    experiment = load_experiment(name, ["data.plan.0.skipped=[[2, 4]]"])
    assert config.from_dict(json.loads(json.dumps(config.to_dict(experiment)))) == experiment


def test_from_dict_fills_defaults_and_refuses_what_it_does_not_know() -> None:
    values = config.to_dict(TINY)
    del values["mesh"]
    assert config.from_dict(values) == TINY
    with pytest.raises(ValueError, match=r"experiment\.model: unknown key 'layers'"):
        config.from_dict(values | {"model": values["model"] | {"layers": 3}})
    with pytest.raises(ValueError, match=r"experiment: missing key 'name'"):
        config.from_dict({k: v for k, v in values.items() if k != "name"})
    with pytest.raises(ValueError, match=r"train\.steps=0: must be above 0"):
        config.from_dict(values | {"train": values["train"] | {"steps": 0}})
    with pytest.raises(ValueError, match=r"expected the fields of Experiment"):
        config.from_dict([])


@pytest.mark.parametrize(
    "item",
    [
        *("train.steps=1_000_000_000_000", "health.max_nonfinite=10_000_000_000"),
        "data.plan.0.skipped=[[2, 1000000000000]]",
    ],
)
def test_what_no_device_can_count_is_refused(item: str) -> None:
    with pytest.raises(ValueError, match=r"must be at most 2,147,483,647"):
        config.load_experiment("ko_tiny", [item])


def test_an_interval_may_be_longer_than_any_run() -> None:
    """As one says "at the end only"; runs that said so must load."""
    items = ["train.checkpoint_every=10_000_000_000", "train.eval_sequences=10_000_000_000"]
    experiment = config.load_experiment("ko_tiny", items)
    assert config.from_dict(config.to_dict(experiment)) == experiment


def test_text_names_every_field_once_in_order() -> None:
    def leaves(value: object) -> int:
        if isinstance(value, dict):
            return sum(map(leaves, value.values()))
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return sum(map(leaves, value))
        return 1

    lines = to_text(TINY).splitlines()
    assert lines == sorted(set(lines))
    assert len(lines) == leaves(config.to_dict(TINY))
    assert 'data.plan.0.sources.0.path = "quickstart/sample/shards"' in lines
    assert "mesh.data = null" in lines


def test_experiments_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.train.steps = 3
    assert isinstance(hash(TINY), int)
    assert all(field.kw_only for field in dataclasses.fields(Experiment))
