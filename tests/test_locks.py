"""The lock files hold what pyproject.toml asks for: hashed, for CPUs, without addresses."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = {  # what each lock is made from, beside the dependencies of all
    f"py3{minor}{suffix}.txt": [r for extra in extras for r in EXTRAS[extra]]
    for minor in (11, 12, 13)
    for suffix, extras in {
        "": ["tokenizer"],
        "-plan": ["plan", "plan-test"],
        "-dev": ["tokenizer", "east-asian", "eval", "hf", "lm-eval", "ray", "dev"],
    }.items()
}


def read_pins(name: str) -> dict[str, str]:
    text = (ROOT / "locks" / name).read_text(encoding="utf-8")
    entries = text.replace("\\\n", " ").splitlines()
    matches = [
        re.fullmatch(r"([a-z0-9.-]+)==(\S+)((\s+--hash=sha256:\w{64})+)", e) for e in entries
    ]
    assert all(matches), f"{name}: a line is not a hashed pin"
    return {canonicalize_name(m[1]): m[2] for m in matches if m}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_satisfies_the_project(name: str) -> None:
    pins = read_pins(name)
    for requirement in map(Requirement, [*PROJECT["dependencies"], *LOCKS[name]]):
        if requirement.name == PROJECT["name"]:  # the extras of dev
            continue
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{name} lacks {requirement}: make locks"
        assert requirement.specifier.contains(pin), f"{name} has {pin} for {requirement}"


@pytest.mark.parametrize("name", [name for name in LOCKS if not name.endswith("-plan.txt")])
def test_lock_stays_small(name: str) -> None:
    unwanted = ("torch", "triton", "nvidia", "jax-cuda", "libtpu")
    unwanted += () if name.endswith("-dev.txt") else ("transformers", "pytest", "ruff")
    assert [pin for pin in read_pins(name) if pin.startswith(unwanted)] == []


def test_development_extends_the_runtime() -> None:
    for minor in (11, 12, 13):
        runtime = read_pins(f"py3{minor}.txt").items()
        assert runtime <= read_pins(f"py3{minor}-dev.txt").items()


def test_the_compilers_go_with_the_runtime() -> None:
    for minor in (11, 12, 13):
        runtime, plan = read_pins(f"py3{minor}.txt"), read_pins(f"py3{minor}-plan.txt")
        assert all(plan[name] == runtime[name] for name in ("jax", "jaxlib", "flax", "optax"))
        compilers = (plan["jax-cuda12-pjrt"], plan["jax-cuda12-plugin"])
        assert compilers == (runtime["jax"], runtime["jax"])


def test_one_transformers_for_all() -> None:
    pins = {read_pins(name)["transformers"] for name in LOCKS if name.endswith("-dev.txt")}
    assert len(pins) == 1
