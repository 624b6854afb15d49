"""The safetensors files of a directory: found and checked, read in slices, written as a stream.

The library checks a file. To read by it costs a fault for each page of the mapped file, which also
counts as this process's memory; to write by it takes the whole file in memory, twice. So the bytes
are read and written here, the same that it writes: a length, a JSON header and the tensors. What
the header says is known before the first tensor: they may come in any order, one at a time.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
INDEX = "model.safetensors.index.json"
_NAMES = {"float32": "F32", "bfloat16": "BF16"}
_READ = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": DTYPES["bfloat16"]}


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file, of which an index of slices reads a part."""

    file: Path
    start: int  # byte in the file
    shape: tuple[int, ...]
    dtype: str  # the format's name, as "F32"

    @property
    def is_readable(self) -> bool:
        return self.dtype in _READ

    def __getitem__(self, cuts: tuple[slice, ...]) -> np.ndarray:
        dtype = _READ[self.dtype]
        shape = [len(range(*cut.indices(n))) for cut, n in zip(cuts, self.shape, strict=True)]
        if shape[1:] == list(self.shape[1:]):  # whole rows: twice as fast as mapped
            before = (cuts[0].start or 0) * math.prod(self.shape[1:]) * dtype.itemsize
            found = np.fromfile(self.file, dtype, math.prod(shape), offset=self.start + before)
            return found.reshape(shape)
        mapped = np.memmap(self.file, dtype, "r", self.start, self.shape)
        return np.array(mapped[cuts])


def find_tensors(directory: Path) -> dict[str, Tensor]:
    """Returns all tensors of a directory by name.

    Raises:
      ValueError: there are no safetensors, a file is damaged, a name is there twice, or the index
        names other tensors than the files hold.
    """
    files, weight_map = _find_files(directory)
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _read_header(file).items():
            if name in tensors:
                where = f"in {tensors[name].file} and in {file}"
                raise ValueError(f"duplicate tensor {name}: {where}")
            tensors[name] = tensor
    if weight_map is not None:
        for name in sorted(weight_map.keys() | tensors.keys()):
            found = tensors[name].file.name if name in tensors else "no file"
            if weight_map.get(name, "no file") != found:
                kind = "extra" if name not in weight_map else "missing"
                raise ValueError(
                    f"{kind} tensor {name}: {directory / INDEX} says it is in "
                    f"{weight_map.get(name, 'no file')}, but it is in {found}"
                )
    return tensors


def _read_header(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, "numpy"):  # checks the header and the size
            pass
    except SafetensorError as error:
        raise ValueError(f"{file} is not whole; copy it again ({error})") from None
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        start = opened.tell()
    header.pop("__metadata__", None)
    return {
        name: Tensor(file, start + t["data_offsets"][0], tuple(t["shape"]), t["dtype"])
        for name, t in header.items()
    }


def _find_files(directory: Path) -> tuple[list[Path], dict[str, str] | None]:
    """Returns the safetensors files and, where they are sharded, the index's weight map."""
    single, index = directory / "model.safetensors", directory / INDEX
    if single.exists() and index.exists():
        raise ValueError(f"{directory} holds both {single.name} and {INDEX}; delete the stale one")
    if single.exists():
        return [single], None
    if index.exists():
        try:
            weight_map = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
            files = [directory / name for name in sorted(set(weight_map.values()))]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{index} has no weight_map of names to files") from None
        for file in files:
            if file.parent != directory:
                raise ValueError(f"{index} names {file}, which is not a file beside it")
            if not file.is_file():
                raise ValueError(f"{INDEX} names {file}, which does not exist; copy it again")
        return files, weight_map
    pickles = sorted(directory.glob("*.bin")) + sorted(directory.glob("*.pt"))
    if pickles:
        raise ValueError(
            f"{pickles[0]}: pickles are not read, since they can run code; load the model with "
            "transformers once and save it with save_pretrained, which writes safetensors"
        )
    raise ValueError(f"no model.safetensors or {INDEX} in {directory}")


# ---- writing


@contextlib.contextmanager
def new_tensors(
    directory: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, max_file_bytes: int
) -> Iterator[Callable[[str, np.ndarray], None]]:
    """Gives put(name, array), which writes one of the tensors into its place.

    Every tensor must be put once, in whatever order.

    Args:
      shapes: of all tensors, in the order in which they are dealt out to files.
      dtype: "float32" or "bfloat16".
      max_file_bytes: of tensors in a file; an index is written if there are several files.
    Raises:
      OSError: the directory cannot be written.
    """
    itemsize = DTYPES[dtype].itemsize
    files = _plan_files(shapes, itemsize, max_file_bytes)
    names = ["model.safetensors"]
    if len(files) > 1:
        names = [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    with contextlib.ExitStack() as stack:
        places: dict[str, tuple[Any, int]] = {}
        for name, held in zip(names, files, strict=True):
            file = stack.enter_context((directory / name).open("wb"))
            header, starts = _header(held, dtype)
            file.write(header)
            places |= {tensor: (file, start) for tensor, start in starts.items()}

        def put(name: str, array: np.ndarray) -> None:
            assert array.dtype == DTYPES[dtype]
            assert array.shape == shapes[name]
            file, start = places[name]
            file.seek(start)
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

        yield put
    if len(files) > 1:
        total = itemsize * sum(map(math.prod, shapes.values()))
        weight_map = {
            tensor: name for name, held in zip(names, files, strict=True) for tensor in held
        }
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> tuple[bytes, dict[str, int]]:
    """Returns the bytes before the first tensor, and where in the file each tensor starts."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses others
    end = 0
    for name, shape in sorted(shapes.items()):  # as the library does
        start, end = end, end + math.prod(shape) * DTYPES[dtype].itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    before = len(text).to_bytes(8, "little") + text
    starts = {name: len(before) + entries[name]["data_offsets"][0] for name in shapes}
    return before, starts


def _plan_files(
    shapes: Mapping[str, tuple[int, ...]], itemsize: int, max_file_bytes: int
) -> list[dict[str, tuple[int, ...]]]:
    """Returns the tensors of each file with their shapes, in the order given."""
    files: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * itemsize
        if files[-1] and filled + size > max_file_bytes:
            files.append({})
            filled = 0
        files[-1][name] = shape
        filled += size
    return files
