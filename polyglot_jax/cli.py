"""How every program starts and fails: absl flags in, one clear line and a true exit code out."""

import inspect
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging


def run(main: Callable[[], None]) -> NoReturn:
    """Parses the flags and runs `main`.

    A user's mistake or a failed run, which is a ValueError, an OSError, a FloatingPointError, an
    error of the device such as lack of memory, or one of the libraries behind a bucket, ends in one
    line on stderr and exit code 1; with --verbosity=1 its traceback is shown instead. Any other
    exception is a bug of ours and shows its traceback. An interrupt exits with 130, as shells
    expect.
    """

    def guarded(unused_argv: Sequence[str]) -> int:
        if not flags.FLAGS["verbosity"].present:
            # Orbax tells each of its steps otherwise, and every thread's traceback of a failure.
            logging.set_verbosity(logging.FATAL)
            sys.unraisablehook = _print_unless_late
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        try:
            main()
        except (Exception, KeyboardInterrupt) as error:
            end = last_words(error)
            if end is None:
                raise
            line, code = end
            print(line, file=sys.stderr)
            return code
        return 0

    app.run(guarded, flags_parser=_parse_flags)
    raise AssertionError("app.run exits")


def last_words(error: BaseException) -> tuple[str, int] | None:
    """Returns the one line that says why a program ends, and its exit code.

    None for a bug of ours and with --verbosity=1: there the traceback says it.
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, ImportError) and "gcsfs" in str(error):
        return "error: gs:// paths need the gcs extra: pip install -e '.[gcs]'", 1
    if isinstance(error, KeyError) and str(error).endswith("://'"):  # epath's
        return f"error: paths may not begin with {error}: only with gs:// or on a local disk", 1
    if logging.get_verbosity() >= logging.DEBUG:
        return None
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return f"error: {one_line(error)}", 1
    # By name: programs start without these libraries.
    if type(error).__name__ == "JaxRuntimeError":
        return f"error: {one_line(error, 300)}", 1
    if is_of_bucket(error):
        return f"error: {type(error).__name__}: {one_line(error, 300)}", 1
    return None


def is_of_bucket(error: BaseException) -> bool:
    """Returns whether it comes from the libraries behind gs:// paths, whose errors are no OSError
    and come after retries of their own: a bucket that does not answer, or does not know us."""
    return type(error).__module__.partition(".")[0] in ("gcsfs", "google", "aiohttp", "requests")


def one_line(error: BaseException, most: int | None = None) -> str:
    """Returns an exception's message without line breaks; its class where it has none.

    Args:
      most: characters, more or less. Of a longer message the middle is left out: it often begins
        with what was tried and ends with why it failed. What TensorStore appends is no part of it.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if most is not None:
        text = re.split(r" \[(?:tensorstore_spec|source locations)=", text)[0]
        if len(text) > most:
            text = f"{text[: most // 2]} ... {text[-(most // 2) :]}"
    return text


def _print_unless_late(unraisable: Any) -> None:
    """Leaves out what is printed of every further array of a read or write that has failed already.

    Orbax raises the first failure itself. TensorStore's callbacks may come too late for its event
    loop, and coroutines that it no longer waits for may fail while they are closed.
    """
    late = str(unraisable.exc_value) == "Event loop is closed"
    if not late and not inspect.iscoroutine(unraisable.object):
        sys.__unraisablehook__(unraisable)


def _parse_flags(argv: list[str]) -> list[str]:
    """Like absl's own parser, but a misspelt flag is one line and positional words are refused."""
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {one_line(error)} (--help lists the flags)", file=sys.stderr)
        sys.exit(2)
    except SystemExit:  # only --help and its kin exit while parsing, and absl lets them exit with 1
        sys.exit(0)
    if rest[1:]:
        print(f"error: unexpected argument {rest[1]!r} (flags are --name=value)", file=sys.stderr)
        sys.exit(2)
    return rest
