"""The command and the table: what is printed, what is refused, and that a table can go on."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from polyglot_jax.plan import __main__ as command
from polyglot_jax.plan import table
from polyglot_jax.plan.hardware import GIB
from tests.plan.made import made_plan, topology


def test_what_a_person_reads() -> None:
    text = command.describe(made_plan(complaints=("all-gather of an activation",)), mfu=0.5)
    assert text.startswith(
        "ko_1p3b on a100-80g:1x8: fits: 19.00 of 74.51 GiB, 55.51 GiB to spare\n"
    )
    assert "data=1 fsdp=8 tensor=1; 8 sequences at a time, 16 times an update; remat dots" in text
    assert "at 50% of 2.500e+15 FLOP/s 8.00 s" in text
    assert "100.0e9 tokens: 0.1 days, 18 device-hours" in text
    assert "all-gather over fsdp: 100 an update, 4.00 GiB, 50% hidden behind work" in text
    assert "complaint   all-gather of an activation" in text


def test_what_does_not_fit() -> None:
    found = made_plan(temporaries=None, peak=None, short=3.5 * GIB)
    assert command.verdict(found) == "does not fit by 3.50 GiB of 74.51"
    assert "chosen; nothing compiled" in command.describe(found, mfu=0.5)


def test_no_temporaries_are_some_too() -> None:
    assert "nothing compiled" not in command.describe(made_plan(temporaries=0), mfu=0.5)


def test_settings_make_the_experiment_that_was_planned() -> None:
    assert command.settings(made_plan(attention="xla")) == [
        *("--set mesh.data=1", "--set mesh.fsdp=8", "--set mesh.tensor=1"),
        *("--set train.accumulation=16", "--set model.remat=dots", "--set model.attention=xla"),
    ]


def test_json_survives_a_round_trip() -> None:
    found = made_plan()
    values = json.loads(json.dumps(command.as_dict(found, 0.4)))
    assert values["fits"]
    assert values["spare"] == 80e9 - 19 * GIB
    assert command.as_dict(made_plan(short=1.0), 0.4)["spare"] is None
    assert values["step_seconds"] == pytest.approx(10)
    known = {name: values[name] for name in found.__dataclass_fields__}
    assert table.from_dict(known) == found


def run_main(
    monkeypatch: pytest.MonkeyPatch, found: Any, failure: Exception | None = None, **flags: Any
) -> None:
    """Runs the command where `plan` gives or raises `found`, and `search` fails or does not."""

    def planned(experiment: Any, topology: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    defaults = {"table": False, "experiment": "ko_1p3b", "topology": "h100:1x8", "set": []}
    defaults |= {"mfu": 0.5, "suggest": None, "json": False, "output": None}
    monkeypatch.setattr(command.flags, "FLAGS", SimpleNamespace(**(defaults | flags)))
    monkeypatch.setattr(command, "open_topology", lambda name: topology(name, 8))
    monkeypatch.setattr(command, "plan", planned)

    def searched(*unused: Any) -> Any:
        yield made_plan(short=1.0)
        if failure:
            raise failure
        yield made_plan(remat="full")

    monkeypatch.setattr(command, "search", searched)
    command.main()


def test_settings_that_fit_need_no_suggestion(monkeypatch: Any, capsys: Any) -> None:
    run_main(monkeypatch, made_plan())
    assert "suggested" not in capsys.readouterr().out
    run_main(monkeypatch, made_plan(), suggest=True)
    assert "suggested:" in capsys.readouterr().out


def test_what_does_not_fit_gets_the_flags_that_do(monkeypatch: Any, capsys: Any) -> None:
    run_main(monkeypatch, made_plan(short=GIB))
    out = capsys.readouterr().out
    assert out.startswith("ko_1p3b on a100-80g:1x8: does not fit by 1.00 GiB")
    assert out.rstrip().endswith("--set train.accumulation=16 --set model.remat=full")


def test_a_failed_search_leaves_the_answer(monkeypatch: Any, capsys: Any) -> None:
    failure = ValueError("no mesh of 8 devices")
    run_main(monkeypatch, made_plan(short=GIB), failure)
    out = capsys.readouterr().out
    assert out.startswith("ko_1p3b on a100-80g:1x8: does not fit by 1.00 GiB")
    assert out.endswith("\n\nno suggestion: no mesh of 8 devices\n")
    run_main(monkeypatch, made_plan(short=GIB), failure, json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["plan"]["short"] == GIB
    assert record["suggestion"] is None
    assert record["no_suggestion"] == "no mesh of 8 devices"
    with pytest.raises(ValueError, match="no mesh of 8 devices"):
        run_main(monkeypatch, ValueError("refused"), failure)


def test_a_mesh_that_the_devices_refuse(monkeypatch: Any, capsys: Any) -> None:
    run_main(monkeypatch, ValueError("mesh does not fit 8 devices"), json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["plan"] is None
    assert record["refused"] == "mesh does not fit 8 devices"
    assert record["suggestion"]["remat"] == "full"
    with pytest.raises(ValueError, match="does not fit 8"):
        run_main(monkeypatch, ValueError("mesh does not fit 8 devices"), suggest=False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"output": None}, "--table needs --output=PAGE.md"),
        ({"output": "cells.jsonl"}, "--table needs --output=PAGE.md"),  # its own cells
        ({"output": "a.md", "experiment": "ko_tiny"}, "ko_tiny is not in the table; of it: ko_1p"),
        ({"output": "a.md", "topology": "v5e:2x2"}, "v5e:2x2 is not in the table; of it: v4:4x4"),
    ],
)
def test_what_is_no_table(monkeypatch: Any, flags: dict, message: str) -> None:
    flags = {"table": True, "experiment": None, "topology": None} | flags
    with pytest.raises(ValueError, match=message):
        run_main(monkeypatch, None, **flags)


def test_the_table_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def cell(size: str, where: str) -> Any:
        asked.append((size, where))
        if len(asked) == 3:
            raise KeyboardInterrupt
        short = 2.25 * GIB if size == "ko_40b" else 0
        return made_plan(experiment=size, topology=where, short=short)

    monkeypatch.setattr(table, "cell", cell)
    page = tmp_path / "scale.md"
    with pytest.raises(KeyboardInterrupt):
        command.make_table(page, None, "v5e:16x16")
    text = page.read_text(encoding="utf-8")
    assert text.count("fits, 19.0 GiB") == 2
    assert text.count("not compiled yet") == len(table.SIZES) * len(table.TOPOLOGIES) - 2
    command.make_table(page, None, "v5e:16x16")
    assert asked == [(size, "v5e:16x16") for size in (*table.SIZES[:3], *table.SIZES[2:])]
    text = page.read_text(encoding="utf-8")
    assert "does not fit by 2.2 GiB" in text
    assert text.count("| `v5e:16x16` |") == 1 + len(table.SIZES)


def test_a_broken_line_of_the_cells_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scale.jsonl"
    path.write_text('{"experiment": "ko_1p3b"', encoding="utf-8")
    with pytest.raises(ValueError, match=r"scale.jsonl:1: .*delete the line"):
        table.read_cells(path)


def test_a_cell_of_other_versions_or_options_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_plan(topology="v5e:16x16")
    monkeypatch.setattr(table, "cell", lambda size, where: dataclasses.replace(made, short=GIB))
    path = tmp_path / "scale.jsonl"

    def kept(version: str | None, **changes: Any) -> bool:
        """Whether a line by these makers counts where `version` of the compiler is installed."""
        monkeypatch.setattr(table, "installed", lambda package: version)
        makers = {"jax": jax.__version__, "libtpu": "0.0.42", "options": table.FLAGS["tpu"]}
        line = {**dataclasses.asdict(made), "made_by": makers | changes}
        path.write_text(json.dumps(line) + "\n", encoding="utf-8")
        (found,) = table.write_cells(path, ["ko_1p3b"], ["v5e:16x16"])
        assert table.read_cells(path) == {("ko_1p3b", "v5e:16x16"): found}  # and only one line
        assert len(path.read_text(encoding="utf-8").splitlines()) == 1
        return found == made

    assert kept("0.0.42")
    assert not kept("0.0.43")
    assert not kept("0.0.42", jax="0.9.0")
    assert not kept("0.0.42", options={})
    assert kept(None)  # without the compiler: as it was made
    assert kept(None, jax="0.9.0")
    assert not kept(None, options={})


def test_lines_that_do_not_say_what_made_them_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "scale.jsonl"
    path.write_text(json.dumps(dataclasses.asdict(made_plan())) + "\n", encoding="utf-8")
    assert table.read_cells(path) == {}
    assert "not compiled yet" in table.page(table.read_cells(path), "a test")


# ---- the kept table: what is not compiled yet by these options is no failure, what is bad is one


REQUIRED = (
    *(("ko_12p8b", t) for t in ("v5e:16x16", "v5p:4x4x4", "a100-80g:32x8")),
    *(("ko_40b", t) for t in ("v5p:8x8x4", "a100-80g:32x8")),
    *(("ko_5p8b", t) for t in ("a100-80g:1x8", "h200:1x1")),
    *table.STATED.items(),
)


@pytest.fixture(scope="module")
def cells() -> dict:
    return table.read_cells(Path(__file__).resolve().parents[2] / "docs" / "scale.jsonl")


@pytest.mark.parametrize(("size", "where"), sorted(set(REQUIRED)))
def test_what_must_fit_fits(size: str, where: str, cells: dict) -> None:
    if (size, where) not in cells:
        pytest.skip("not compiled yet")
    assert cells[size, where].fits


def test_no_cell_has_a_complaint(cells: dict) -> None:
    assert {key: p.complaints for key, p in cells.items() if p.complaints} == {}


def test_gathers_of_weights_do_not_wait(cells: dict) -> None:
    gathers = [t for p in cells.values() for t in p.traffic if t.kind == "all-gather"]
    assert all(t.overlapped > 0.8 for t in gathers if t.axes == ("fsdp",))


def test_the_page_is_that_of_its_cells(cells: dict) -> None:
    if not cells:
        pytest.skip("not compiled yet")
    page = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    made_by = page.rpartition("Made by ")[2].partition(".\n")[0]
    assert page == table.page(cells, made_by)
