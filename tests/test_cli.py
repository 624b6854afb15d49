"""How programs end: one line for the user's mistakes, a traceback for ours, true exit codes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from polyglot_jax import cli

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = '''"""A program of the test."""
import sys
sys.path.insert(0, {root!r})
from absl import flags
from etils import epath
from polyglot_jax import cli

STEPS = flags.DEFINE_integer("steps", 1, "How many.", lower_bound=1)
FAIL = flags.DEFINE_string("fail", None, "Which way.")

class Once:
    def __await__(self):
        yield

async def read_another():
    try:
        await Once()
    finally:
        raise OSError("array 2 is damaged")

def main():
    match FAIL.value:
        case "value":
            raise ValueError("shard 3:\\n  is empty")
        case "file":
            open("/no/such/file")
        case "bug":
            raise KeyError("ours")
        case "gcs":
            sys.modules["gcsfs"] = None  # as if it were not there
            import gcsfs
        case "scheme":
            epath.Path("file:///tmp").exists()
        case "interrupt":
            raise KeyboardInterrupt
        case "late":
            abandoned = read_another()
            abandoned.send(None)
            del abandoned  # closed before it ends, where it fails once more
            raise ValueError("array 1 is damaged")
    print("steps", STEPS.value)

if __name__ == "__main__":
    cli.run(main)
'''


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "program.py"
    path.write_text(PROGRAM.format(root=str(ROOT)))
    return path


def start(program: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_success_exits_with_zero(program: Path) -> None:
    assert start(program, "--steps=3") == (0, "steps 3\n", "")


@pytest.mark.parametrize(
    ("fail", "line"),
    [
        ("value", "error: shard 3: is empty\n"),
        ("file", "error: [Errno 2] No such file or directory: '/no/such/file'\n"),
        ("late", "error: array 1 is damaged\n"),
        (
            "scheme",
            "error: paths may not begin with 'file://': only with gs:// or on a local disk\n",
        ),
        ("gcs", "error: gs:// paths need the gcs extra: pip install -e '.[gcs]'\n"),
    ],
)
def test_a_mistake_of_the_user_is_one_line(program: Path, fail: str, line: str) -> None:
    assert start(program, f"--fail={fail}") == (1, "", line)


def test_verbosity_shows_the_traceback(program: Path) -> None:
    code, _, errors = start(program, "--fail=value", "--verbosity=1")
    assert code == 1
    assert "Traceback" in errors
    assert "ValueError: shard 3:" in errors


def test_a_bug_shows_its_traceback(program: Path) -> None:
    code, _, errors = start(program, "--fail=bug")
    assert code == 1
    assert "Traceback" in errors
    assert "KeyError: 'ours'" in errors


def test_an_interrupt_exits_as_shells_expect(program: Path) -> None:
    assert start(program, "--fail=interrupt") == (128 + signal.SIGINT, "", "interrupted\n")


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--stesp=3", "error: Unknown command line flag 'stesp'."),
        ("--steps=many", "error: flag --steps=many: invalid literal for int()"),
        ("--steps=0", "error: flag --steps=0: 0 is not a positive integer"),
        ("corpus.txt", "error: unexpected argument 'corpus.txt' (flags are --name=value)"),
    ],
)
def test_faulty_arguments_are_one_line(program: Path, argument: str, line: str) -> None:
    code, output, errors = start(program, argument)
    assert (code, output) == (2, "")
    assert errors.startswith(line)
    assert errors.count("\n") == 1


def test_help_lists_the_flags_and_succeeds(program: Path) -> None:
    code, output, _ = start(program, "--help")
    assert code == 0
    assert "A program of the test." in output
    assert "--steps" in output
    assert "--fail" in output


def test_an_error_without_words_names_its_class() -> None:
    assert cli.one_line(ValueError()) == "ValueError"
    assert cli.one_line(OSError(" a\n\tb ")) == "a b"


def test_of_a_long_message_both_ends_stay() -> None:
    text = "writing " + "x" * 500 + ": disk is full"
    short = cli.one_line(
        OSError(f"{text} [source locations='a.cc:1'] [tensorstore_spec='...']"), 60
    )
    assert short.startswith("writing xxx")
    assert short.endswith("x: disk is full")
    assert len(short) < 70
