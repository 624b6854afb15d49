"""The walls of the house: who imports whom, how long a file is, which flags a program has.

Read from the syntax trees of all tracked packages, so that an import inside a function counts too.
"""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("polyglot_jax", "experiments", "tokenizer", "eval", "benchmarks")
LONGEST_FILE = 350  # lines

# What a package may import of the project, by the beginning of a dotted name; the first that fits.
MAY_IMPORT = {
    "polyglot_jax": ("polyglot_jax",),
    "experiments": ("polyglot_jax.config",),
    "tokenizer": (
        "tokenizer",
        *(f"polyglot_jax.{n}" for n in ("cli", "corpus", "files", "pool", "report", "tokens")),
        "polyglot_jax.data.documents",
    ),
    "eval": ("eval", "polyglot_jax"),
    "benchmarks": PACKAGES,
}


def sources() -> list[Path]:
    folders = (*PACKAGES, "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(files) + sorted(ROOT.glob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str) -> Iterator[str]:
    """Yields the dotted names that a source imports; `from a import b` gives `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = [*above, node.module] if node.module else above
            yield from (".".join([*base, alias.name]) for alias in node.names)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def forbidden(module: str, name: str) -> str | None:
    """Returns why `module` must not import `name`, or None if it may."""
    package = module.split(".")[0]
    if is_in(name, "polyglot_jax.train"):
        return "nothing imports train"
    if package == "polyglot_jax" and is_in(name, "torch"):
        return "the library does not know torch"
    ours = any(is_in(name, p) for p in PACKAGES)
    if ours and not any(is_in(name, allowed) for allowed in MAY_IMPORT[package]):
        return f"{package} may import only {', '.join(MAY_IMPORT[package])}"
    return None


@pytest.mark.parametrize("package", PACKAGES)
def test_import_directions(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        module = module_name(path)
        for name in imports(path.read_text(encoding="utf-8"), module):
            reason = forbidden(module, name)
            assert reason is None, f"{path.relative_to(ROOT)} imports {name}: {reason}"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("experiments.x", "from polyglot_jax import mesh"),
        ("experiments.x", "from experiments.ko_tiny import experiment"),
        ("tokenizer.x", "import polyglot_jax.config"),
        ("tokenizer.x", "from eval import tasks"),
        ("eval.x", "import tokenizer.train"),
        ("eval.x", "from polyglot_jax import train"),
        ("benchmarks.x", "from polyglot_jax.train import main"),
        ("polyglot_jax.x", "def f():\n    import torch.nn"),
        ("polyglot_jax.x", "from eval.tasks import kobest"),
        ("polyglot_jax.data.x", "from ..train import main"),
        ("polyglot_jax.x", "from . import train"),
    ],
)
def test_forbidden_imports_are_seen(module: str, source: str) -> None:
    assert [name for name in imports(source, module) if forbidden(module, name)]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("experiments.x", "from polyglot_jax.config import Experiment"),
        ("tokenizer.x", "from polyglot_jax.corpus import readers\nfrom polyglot_jax import cli"),
        ("eval.x", "from polyglot_jax.models import neox\nimport torch"),
        ("polyglot_jax.x", "import torchvision_like_name\nimport tokenizers\nimport evaluate"),
    ],
)
def test_allowed_imports_pass(module: str, source: str) -> None:
    assert not [name for name in imports(source, module) if forbidden(module, name)]


def test_config_imports_no_jax() -> None:
    program = (
        "import sys; from polyglot_jax import config; config.load_experiment('ko_tiny');"
        "print([m for m in ('jax', 'flax', 'numpy', 'tensorstore') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_and_are_about_something(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert path.stem not in ("utils", "util", "common", "helpers", "misc")
    assert source.count("\n") <= LONGEST_FILE, "a file this long is two files"
    assert ast.get_docstring(ast.parse(source)), "a module docstring says what, why, and the idea"


def flag_names(source: str) -> list[str]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return sorted(
        ast.literal_eval(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Attribute | ast.Name)
        and ast.unparse(call.func).split(".")[-1].startswith("DEFINE_")
    )


def test_flags_are_frozen(check_golden: Callable[[str, str], None]) -> None:
    lines = [
        f"{module_name(path)}: {flag}\n"
        for path in sources()
        if path.is_relative_to(ROOT / "tests") is False
        for flag in flag_names(path.read_text(encoding="utf-8"))
    ]
    check_golden("flags.txt", "".join(lines))


def test_flags_are_found_in_any_spelling() -> None:
    source = "A = flags.DEFINE_string('a', None, '')\nDEFINE_bool('b', False, '')"
    assert flag_names(source) == ["a", "b"]
