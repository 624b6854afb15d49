"""Reads one file of every kind that we read, and prints what Python was asked to do meanwhile.

    python -m tests.faults.audited ROOT [--sabotage]

In a process of its own, since an audit hook cannot be taken away. Everything is read twice, and
only the second time counts: the first one imports modules, which is execution too.
"""

import dataclasses
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from etils import epath

from eval import data as eval_data
from polyglot_jax import checkpoint, convert, selection
from polyglot_jax.config import DataConfig, DataPhase, SourceConfig, model_from_dict
from polyglot_jax.corpus import readers
from polyglot_jax.data.held_out import open_held_out
from polyglot_jax.data.mixture import open_plan
from polyglot_jax.data.shards import verify
from polyglot_jax.vocabulary import load_vocabulary

FORBIDDEN = (
    *("pickle.find_class", "exec", "compile", "import", "marshal.loads", "ctypes.dlopen"),
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect"),
)


def everything(root: Path) -> Iterator[Callable[[], object]]:
    shards, workdir, hf = root / "shards", root / "run", root / "hf"
    source = SourceConfig(path=str(shards))
    data = DataConfig(seq_len=32, plan=(DataPhase(sources=(source,)),))
    yield lambda: verify(shards)
    yield lambda: list(open_plan(data, 2).batches(0, 2))
    yield lambda: list(open_held_out(data, 2, 4).batches())
    yield lambda: load_vocabulary(workdir / "tokenizer.json")
    yield lambda: checkpoint.restore_params(workdir)
    yield lambda: selection.held_out(workdir)
    yield lambda: selection.read_tags(workdir)
    yield lambda: checkpoint.set_damaged_aside(workdir)
    model = model_from_dict(checkpoint.read_metadata(workdir, 24)["model"])
    yield lambda: convert.load_hf(hf, model)
    yield lambda: convert.read_hf_config(hf)
    for path in sorted((root / "documents").iterdir()):
        yield partial(lambda path: list(readers.read(path)), epath.Path(path))
    plain: Any = SimpleNamespace(documents=False)
    for path in sorted((root / "tasks").iterdir()):
        yield partial(lambda path: list(eval_data._read_file(path, plain)), epath.Path(path))


def main(root: Path, sabotage: bool) -> None:
    for read in everything(root):
        read()
    seen: set[str] = set()
    readable = (str(root), "/proc/", "/sys/", "/dev/")
    is_on = True

    def hook(event: str, arguments: tuple) -> None:
        if not is_on:
            return
        if event in FORBIDDEN:
            if sys._getframe(1).f_code.co_filename == dataclasses.__file__:
                return  # flax makes dataclasses of its modules: source of its own, compiled and run
            seen.add(f"{event} {str(arguments)[:200]}")
        elif event == "open" and not str(arguments[0]).startswith(readable):
            seen.add(f"open {arguments[0]}")

    sys.addaudithook(hook)
    for read in everything(root):
        read()
    if sabotage:
        pickle.loads(pickle.dumps(Path("x")))
        open("/etc/hostname").close()
    is_on = False
    print("\n".join(sorted(seen)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["--sabotage"])
