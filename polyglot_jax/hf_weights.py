"""GPT-NeoX weights as HF stores them: one table of names and layouts, read and written through it.

Both ways in slices: reading takes only what is asked for from the files, and writing asks for a few
layers at a time, so that a model is never whole in memory. Only safetensors are touched: a pickle
can run code.
"""

import math
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from polyglot_jax.array_slices import bar, rows_at_a_time
from polyglot_jax.config import NeoxConfig
from polyglot_jax.tensor_files import DTYPES, Tensor, find_tensors, new_tensors


class Entry(NamedTuple):
    """Where a parameter is in HF's model, and how its dimensions lie there.

    One letter a dimension: V vocabulary, D model, H heads, Q the three of q, k, v, K head dim, F
    feed-forward. Letters without a space between them are one dimension of HF's tensor. That has
    our letters or, being [out, in] where torch multiplies by it, those of our matrix transposed.
    """

    name: str  # {} is the layer
    ours: str  # of one layer; ours has all layers stacked in front
    theirs: str


# Read at a time: memory of that size is used again, where larger pieces are mapped anew.
STRIP_BYTES = 2**24
LAYERS = "layers/"  # paths below it are stacked
TABLE = {
    "embed_in": Entry("gpt_neox.embed_in.weight", "VD", "V D"),
    **{
        LAYERS + path: Entry("gpt_neox.layers.{}." + name, ours, theirs)
        for path, name, ours, theirs in (
            ("input_layernorm/scale", "input_layernorm.weight", "D", "D"),
            ("input_layernorm/bias", "input_layernorm.bias", "D", "D"),
            ("post_attention_layernorm/scale", "post_attention_layernorm.weight", "D", "D"),
            ("post_attention_layernorm/bias", "post_attention_layernorm.bias", "D", "D"),
            # Fused per head: the rows of one head are its q, its k, its v. Not thirds of all rows.
            (
                *("attention/query_key_value/kernel", "attention.query_key_value.weight"),
                *("DHQK", "HQK D"),
            ),
            ("attention/query_key_value/bias", "attention.query_key_value.bias", "HQK", "HQK"),
            ("attention/dense/kernel", "attention.dense.weight", "HKD", "D HK"),
            ("attention/dense/bias", "attention.dense.bias", "D", "D"),
            ("mlp/dense_h_to_4h/kernel", "mlp.dense_h_to_4h.weight", "DF", "F D"),
            ("mlp/dense_h_to_4h/bias", "mlp.dense_h_to_4h.bias", "F", "F"),
            ("mlp/dense_4h_to_h/kernel", "mlp.dense_4h_to_h.weight", "FD", "D F"),
            ("mlp/dense_4h_to_h/bias", "mlp.dense_4h_to_h.bias", "D", "D"),
        )
    },
    "final_layer_norm/scale": Entry("gpt_neox.final_layer_norm.weight", "D", "D"),
    "final_layer_norm/bias": Entry("gpt_neox.final_layer_norm.bias", "D", "D"),
    "embed_out/kernel": Entry("embed_out.weight", "DV", "V D"),
}

# Constants that transformers before 4.31 stored beside the weights.
BUFFERS = re.compile(r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)")


def _sizes(config: NeoxConfig) -> dict[str, int]:
    c = config
    return {
        **{"V": c.vocab_size, "D": c.d_model, "F": c.d_ff},
        **{"H": c.num_heads, "Q": 3, "K": c.head_dim},
    }


def _hf_shape(config: NeoxConfig, entry: Entry) -> tuple[int, ...]:
    sizes = _sizes(config)
    return tuple(math.prod(sizes[letter] for letter in group) for group in entry.theirs.split())


def hf_tensors(config: NeoxConfig) -> Iterator[tuple[str, str, int | None]]:
    """Yields (HF name, parameter path, layer or None) in the order of the forward pass."""
    stacked = [path for path in TABLE if path.startswith(LAYERS)]
    paths = list(TABLE)
    first, last = paths.index(stacked[0]), paths.index(stacked[-1])
    yield from ((TABLE[path].name, path, None) for path in paths[:first])
    for n in range(config.num_layers):
        yield from ((TABLE[path].name.format(n), path, n) for path in stacked)
    yield from ((TABLE[path].name, path, None) for path in paths[last + 1 :])


# ---- reading


@dataclass(frozen=True)
class HfArray:
    """A parameter of `models.neox`, of which an index of slices reads a part from HF's files."""

    tensors: Mapping[str, Tensor]
    config: NeoxConfig
    path: str
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return _our_shape(self.config, self.path)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, cuts: slice | tuple[slice, ...]) -> np.ndarray:
        cuts = cuts if isinstance(cuts, tuple) else (cuts,)
        cuts += (slice(None),) * (len(self.shape) - len(cuts))
        return self._read(
            tuple(cut.indices(size)[:2] for cut, size in zip(cuts, self.shape, strict=True))
        )

    def _read(self, bounds: tuple[tuple[int, int], ...]) -> np.ndarray:
        entry = TABLE[self.path]
        if not self.path.startswith(LAYERS):
            return self._read_one(entry.name, bounds)
        (first, end), inner = bounds[0], bounds[1:]
        if end - first == 1:  # is not copied once more
            return self._read_one(entry.name.format(first), inner)[None]
        layers = np.empty([stop - start for start, stop in bounds], self.dtype)
        for n in range(first, end):
            layers[n - first] = self._read_one(entry.name.format(n), inner)
        return layers

    def _read_one(self, name: str, bounds: tuple[tuple[int, int], ...]) -> np.ndarray:
        return _read_block(self.tensors[name], self.config, TABLE[self.path], bounds, self.dtype)


def open_weights(directory: Path, config: NeoxConfig, dtype: str = "float32") -> Any:
    """Returns the parameters of `models.neox` as a tree of `HfArray`, which read when indexed.

    Args:
      dtype: that they are read as, "float32" or "bfloat16".
    Raises:
      ValueError: a tensor is missing, extra, duplicate or misshapen, a file is damaged, or there
        are no safetensors.
    """
    found = find_tensors(directory)
    tensors = {name: tensor for name, tensor in found.items() if not BUFFERS.fullmatch(name)}
    _check_tensors(directory, tensors, config)
    flat = {path: HfArray(tensors, config, path, DTYPES[dtype]) for path in TABLE}
    return unflatten_dict(flat, sep="/")


def read_weights(directory: Path, config: NeoxConfig, shardings: Any = None) -> Any:
    """Returns the float32 parameters of a directory.

    Args:
      shardings: a tree of shardings like the parameters: of each, the parts of this process's
        devices are read one after another. None gives numpy arrays.
    Raises:
      ValueError: see `open_weights`.
    """
    arrays = flatten_dict(open_weights(directory, config), sep="/")
    flat_shardings = None if shardings is None else flatten_dict(shardings, sep="/")
    flat: dict[str, Any] = {}
    with bar(sum(array.nbytes for array in arrays.values()), f"reading {directory.name}") as done:
        # The largest first, while there is room for the copies that reading takes.
        for path, array in sorted(arrays.items(), key=lambda item: -item[1].nbytes):
            flat[path] = array[:] if flat_shardings is None else _place(array, flat_shardings[path])
            done.update(array.nbytes)
    return unflatten_dict(flat, sep="/")


def _our_shape(config: NeoxConfig, path: str) -> tuple[int, ...]:
    sizes = _sizes(config)
    layers = (config.num_layers,) if path.startswith(LAYERS) else ()
    return layers + tuple(sizes[letter] for letter in TABLE[path].ours)


def _place(array: HfArray, sharding: jax.sharding.Sharding) -> jax.Array:
    """Reads each part that this process's devices hold, and forgets it before the next."""
    devices: dict[tuple[tuple[int, int], ...], list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(array.shape).items():
        assert index is not None
        bounds = [cut.indices(size)[:2] for cut, size in zip(index, array.shape, strict=True)]
        devices.setdefault(tuple(bounds), []).append(device)
    parts = []
    for part_bounds, holders in devices.items():
        part = array[tuple(slice(*pair) for pair in part_bounds)]
        parts += [jax.block_until_ready(jax.device_put(part, device)) for device in holders]
    return jax.make_array_from_single_device_arrays(array.shape, sharding, parts)


def _read_block(
    tensor: Any,
    config: NeoxConfig,
    entry: Entry,
    bounds: tuple[tuple[int, int], ...],
    dtype: np.dtype,
) -> np.ndarray:
    """Cuts the first letter of each group in the file, reorders, and cuts the other letters."""
    sizes, wanted = _sizes(config), dict(zip(entry.ours, bounds, strict=True))
    cuts = []
    for group in entry.theirs.split():
        inner = math.prod(sizes[letter] for letter in group[1:])
        start, stop = wanted[group[0]]
        cuts.append((start * inner, stop * inner))
    leads = {group[0] for group in entry.theirs.split()}
    shape = [wanted[x][1] - wanted[x][0] if x in leads else sizes[x] for x in entry.ours]
    height, *width = (stop - start for start, stop in cuts)
    transposed = _is_transposed(entry)
    block = np.empty([*width, height] if transposed else [height, *width], dtype)
    rows = max(1, STRIP_BYTES // (math.prod(width) * dtype.itemsize))
    for i in range(0, height, rows):
        first, stop = cuts[0][0] + i, min(cuts[0][0] + i + rows, cuts[0][1])
        strip = tensor[(slice(first, stop), *(slice(*cut) for cut in cuts[1:]))]
        strip = strip.astype(dtype, copy=False)
        if transposed:
            _transpose(strip, block[:, i : i + rows])
        else:
            block[i : i + rows] = strip
    block = block.reshape(shape)
    return block[tuple(slice(None) if x in leads else slice(*wanted[x]) for x in entry.ours)]


def _is_transposed(entry: Entry) -> bool:
    return entry.ours != entry.theirs.replace(" ", "")


def _transpose(matrix: np.ndarray, out: np.ndarray) -> None:
    """Writes the transpose, several times as fast as numpy alone.

    That walks through one of the two with steps of a row, and takes an element of each cache line.
    In strips of a cache line's width, the lines are still there when the next element is wanted.
    """
    width = 64 // matrix.dtype.itemsize
    for i in range(0, len(matrix), width):
        out[:, i : i + width] = matrix[i : i + width].T


def _check_tensors(directory: Path, tensors: Mapping[str, Tensor], config: NeoxConfig) -> None:
    expected = {name: _hf_shape(config, TABLE[path]) for name, path, _ in hf_tensors(config)}
    for name, shape in expected.items():
        if name not in tensors:
            raise ValueError(f"missing tensor {name} of shape {shape} in {directory}")
    for name, tensor in tensors.items():
        where, shape = f"tensor {name} in {tensor.file}", tensor.shape
        if name not in expected:
            raise ValueError(f"extra {where} of shape {shape}: no such parameter")
        if shape != expected[name]:
            raise ValueError(
                f"misshapen {where}: {shape}, but config.json asks for {expected[name]}"
            )
        if not tensor.is_readable:
            raise ValueError(f"{where} is {tensor.dtype}; only F32, F16 and BF16 are read")


# ---- writing


def to_hf(config: NeoxConfig, params: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (HF name, tensor) of a tree of numpy arrays."""
    for path, array in flatten_dict(params, sep="/").items():
        yield from _hf_tensors_of(config, path, array, 0)


def _hf_tensors_of(
    config: NeoxConfig, path: str, array: np.ndarray, first: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields HF's tensors of a parameter, or of its layers from `first` on."""
    entry, stacked = TABLE[path], path.startswith(LAYERS)
    shape = _hf_shape(config, entry)
    for n, one in enumerate(array if stacked else array[None], first):
        name = entry.name.format(n) if stacked else entry.name
        if _is_transposed(entry):
            tensor = np.empty(shape, one.dtype)
            _transpose(one.reshape(shape[::-1]), tensor)
            yield name, tensor
        else:
            yield name, one.reshape(shape)


def write_weights(
    directory: Path, config: NeoxConfig, params: Any, dtype: str, max_file_bytes: int = 5 * 10**9
) -> None:
    """Writes safetensors of at most `max_file_bytes` each, with an index if they are several.

    Args:
      params: a tree of arrays that are read a few layers at a time: numpy, JAX, `StoredArray` or
        `HfArray`.
      dtype: "float32" or "bfloat16".
    Raises:
      OSError: the directory cannot be written.
    """
    arrays = flatten_dict(params, sep="/")
    shapes = {name: _hf_shape(config, TABLE[path]) for name, path, _ in hf_tensors(config)}
    total = sum(map(math.prod, shapes.values())) * DTYPES[dtype].itemsize
    with (
        new_tensors(directory, shapes, dtype, max_file_bytes) as put,
        bar(total, "writing") as progress,
        ThreadPoolExecutor(1) as writer,
    ):

        def write(path: str, rows: np.ndarray, first: int) -> None:
            rows = rows.astype(DTYPES[dtype], copy=False)
            for name, tensor in _hf_tensors_of(config, path, rows, first):
                put(name, tensor)
            progress.update(rows.nbytes)

        before: Future[None] = writer.submit(lambda: None)
        for path in TABLE:
            array = arrays[path]
            step = rows_at_a_time(array) if path.startswith(LAYERS) else array.shape[0]
            for first in range(0, array.shape[0], step):
                rows = np.asarray(array[first : first + step])
                before.result()  # two slices are in memory: one is written, one is read
                before = writer.submit(write, path, rows, first)
        before.result()
