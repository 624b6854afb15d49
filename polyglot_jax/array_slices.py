"""Checkpoint arrays in slices of their first axis, so that no array need be whole in memory.

Layers are stacked along the first axis. Orbax writes what is wholly in memory and reads the same
way; a type handler, which is how Orbax is extended, teaches it another kind of leaf: anything with
a shape and a dtype that gives its rows when it is indexed. The files are those Orbax writes for a
numpy array, cut into chunks, and any Orbax reads them. Reading opens the arrays only.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from tqdm import tqdm

SLICE_BYTES = 2**27  # at most, of rows that are read or written at a time, unless one has more
CHUNK_BYTES = 2**24  # of a stored chunk: the least that is read, compressed by one core
BYTES_IN_FLIGHT = 2**26  # of chunks that are read at once: more than disks give to a few cores
WIDE_BYTES = 2**30  # of rows read at a time of chunks that have many: else all is read too often


class Sliceable(Protocol):
    """What can be saved: a numpy or JAX array, or rows that are made when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, rows: slice, /) -> Any: ...


def bar(total: int, what: str) -> Any:
    """Returns a progress bar of `total` bytes, shown on a terminal only."""
    return tqdm(total=total, desc=what, unit="B", unit_scale=True, disable=None)


@dataclass(frozen=True)
class StoredArray:
    """An array of a checkpoint that is read where it is indexed by a slice of rows."""

    store: ts.TensorStore
    errors: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext  # around reading

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.store.shape)

    @property
    def dtype(self) -> np.dtype:
        return self.store.dtype.numpy_dtype

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """What is stored, and read, as one."""
        return cast(tuple[int, ...], self.store.chunk_layout.read_chunk.shape)

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        part = self.store[start:stop].translate_to[(0,) * self.store.rank]
        out = np.empty(part.shape, self.dtype)
        chunk_bytes = math.prod(self.chunk_shape) * self.dtype.itemsize
        reads: deque[Any] = deque()
        with self.errors():
            for cell in _cells(out.shape, self.chunk_shape):
                if len(reads) * chunk_bytes >= BYTES_IN_FLIGHT:
                    reads.popleft().result()
                reads.append(ts.array(out[cell]).write(part[cell].translate_to[(0,) * out.ndim]))
            for read in reads:
                read.result()
        return out


def _cells(shape: Sequence[int], chunk: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Yields slices that cut all axes but the first into the pieces of the chunk grid."""
    axes = [
        [slice(i, min(i + step, size)) for i in range(0, size, step)]
        for size, step in zip(shape[1:], chunk[1:], strict=True)
    ]
    return itertools.product([slice(0, shape[0])], *axes)


def rows_at_a_time(array: Sliceable) -> int:
    """Returns how many rows of an array to read at once."""
    row_bytes = math.prod(array.shape[1:]) * array.dtype.itemsize
    few, many = (min(array.shape[0], max(1, n // row_bytes)) for n in (SLICE_BYTES, WIDE_BYTES))
    chunk_rows = array.chunk_shape[0] if isinstance(array, StoredArray) else 1
    return max(few, min(many, chunk_rows))


class SliceHandler(ocp.type_handlers.NumpyHandler):
    """Saves any `Sliceable` slice by slice, and restores as `StoredArray`."""

    async def serialize(
        self, values: Sequence[Any], infos: Sequence[Any], args: Sequence[Any] | None = None
    ) -> Sequence[Any]:
        writing = self._write(values, infos, args or [ocp.SaveArgs()] * len(values))
        return [ocp.future.CommitFutureAwaitingContractedSignals(writing, name="slice_handler")]

    async def deserialize(
        self, infos: Sequence[Any], args: Sequence[Any] | None = None
    ) -> Sequence[Any]:
        specs = [
            ocp.type_handlers.get_json_tspec_read(info, use_ocdbt=info.is_ocdbt_checkpoint)
            for info in infos
        ]
        opening = [
            ts.open(ts.Spec(spec), open=True, context=info.ts_context)
            for spec, info in zip(specs, infos, strict=True)
        ]
        return [StoredArray(store) for store in await asyncio.gather(*opening)]

    async def _write(
        self, values: Sequence[Sliceable], infos: Sequence[Any], args: Sequence[Any]
    ) -> None:
        total = sum(math.prod(value.shape) * value.dtype.itemsize for value in values)
        with bar(total, "writing") as progress:
            for value, info, arg in zip(values, infos, args, strict=True):
                await info.await_path_creation()
                rows = rows_at_a_time(value)
                spec = ocp.type_handlers.get_json_tspec_write(
                    info,
                    use_ocdbt=info.is_ocdbt_checkpoint,
                    global_shape=tuple(value.shape),
                    local_shape=(rows, *value.shape[1:]),
                    dtype=np.dtype(value.dtype),
                    process_index=ocp.multihost.process_index(),
                    arg=dataclasses.replace(
                        arg, chunk_byte_size=arg.chunk_byte_size or CHUNK_BYTES
                    ),
                )
                store = await ts.open(
                    ts.Spec(spec), create=True, open=True, context=info.ts_context
                )
                await _write_rows(store, value, rows, progress.update)


async def _write_rows(
    store: ts.TensorStore, value: Sliceable, rows: int, done: Callable[[int], Any]
) -> None:
    """Writes while the next rows are made; two slices are in memory at most."""
    before: Any = None
    for start in range(0, value.shape[0], rows):
        part = np.asarray(value[start : start + rows])
        if before is not None:
            await before
        before = store[start : start + len(part)].write(
            part, can_reference_source_data_indefinitely=True
        )
        before.commit.force()
        done(part.nbytes)
    await before


def save_args(tree: Any) -> Any:
    """Returns how to save a training state, so that its parameters can be read in slices later.

    Orbax makes a chunk of what a device holds, which is a part of all layers: to read some of them
    would be to read all. Arrays that fit into WIDE_BYTES are read whole and stay so.
    """

    def args(path: Sequence[Any], leaf: Any) -> ocp.SaveArgs:
        is_stacked = any(getattr(key, "key", None) == "layers" for key in path)
        if is_stacked and leaf.nbytes > WIDE_BYTES:
            return ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES, shard_axes=(0,))
        return ocp.SaveArgs()

    return jax.tree_util.tree_map_with_path(args, tree)


REGISTRY = ocp.type_handlers.create_type_handler_registry(
    (jax.Array, ocp.type_handlers.get_type_handler(jax.Array)), (object, SliceHandler())
)
