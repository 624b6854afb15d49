"""GPT-NeoX weights as HF stores them: one table of names and layouts, read and written through it.

Reading is lazy: only the slices that this process's devices hold leave the files, one parameter at
a time, so a model is never whole on the host when it is loaded into a mesh. Only safetensors are
touched: a pickle can run code.
"""

import contextlib
import functools
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from polyglot_jax.config import NeoxConfig

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
INDEX = "model.safetensors.index.json"


class Entry(NamedTuple):
    """Where a parameter is in HF's model, and how its dimensions lie there.

    One letter a dimension: V vocabulary, D model, H heads, Q the three of q, k, v, K head dim, F
    feed-forward. Letters without a space between them are one dimension of HF's tensor, which is
    [out, in] where torch multiplies by it.
    """

    name: str  # {} is the layer
    ours: str  # of one layer; ours has all layers stacked in front
    theirs: str


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


def read_weights(directory: Path, config: NeoxConfig, shardings: Any = None) -> Any:
    """Returns the float32 parameters of `models.neox` from a directory's safetensors.

    Args:
      shardings: a tree of shardings like the parameters; None gives numpy arrays.
    Raises:
      ValueError: a tensor is missing, extra, duplicate or misshapen, a file is damaged, or there
        are no safetensors.
    """
    with contextlib.ExitStack() as stack:
        tensors = _open_tensors(directory, stack)
        _check_tensors(directory, tensors, config)
    flat_shardings = None if shardings is None else flatten_dict(shardings, sep="/")
    flat: dict[str, Any] = {}
    # The largest first, while there is room for the copies that reading takes. Opened anew for
    # each: what was read of a mapped file counts as memory of this process until it is closed.
    largest_first = sorted(TABLE, key=lambda path: -math.prod(_our_shape(config, path)))
    for path in tqdm(largest_first, desc=f"reading {directory.name}", disable=None):
        with contextlib.ExitStack() as stack:
            tensors = _open_tensors(directory, stack)
            read = functools.partial(_read_parameter, tensors, config, path)
            shape = _our_shape(config, path)
            if flat_shardings is None:
                flat[path] = read(tuple((0, size) for size in shape))
            else:
                flat[path] = _read_sharded(read, shape, flat_shardings[path])
    return unflatten_dict(flat, sep="/")


def _our_shape(config: NeoxConfig, path: str) -> tuple[int, ...]:
    sizes = _sizes(config)
    layers = (config.num_layers,) if path.startswith(LAYERS) else ()
    return layers + tuple(sizes[letter] for letter in TABLE[path].ours)


def _read_sharded(read: Any, shape: tuple[int, ...], sharding: jax.sharding.Sharding) -> jax.Array:
    cached = functools.cache(read)  # devices that hold the same part share one read

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        return cached(tuple(cut.indices(size)[:2] for cut, size in zip(index, shape, strict=True)))

    # Waits, or the next is read while this one's copies are still there.
    return jax.block_until_ready(jax.make_array_from_callback(shape, sharding, part))


def _read_parameter(
    tensors: Mapping[str, tuple[Path, Any]],
    config: NeoxConfig,
    path: str,
    bounds: tuple[tuple[int, int], ...],
) -> np.ndarray:
    """Returns the float32 block [start, end) x ... of a parameter."""
    entry = TABLE[path]
    if not path.startswith(LAYERS):
        block = _read_block(tensors[entry.name][1], config, entry, bounds)
        return block.astype(np.float32, copy=False)
    (first, end), inner = bounds[0], bounds[1:]
    block = np.empty([stop - start for start, stop in bounds], np.float32)
    for n in range(first, end):
        block[n - first] = _read_block(tensors[entry.name.format(n)][1], config, entry, inner)
    return block


def _read_block(
    tensor: Any, config: NeoxConfig, entry: Entry, bounds: tuple[tuple[int, int], ...]
) -> np.ndarray:
    """Cuts the first letter of each group in the file, reorders, and cuts the other letters."""
    sizes, wanted = _sizes(config), dict(zip(entry.ours, bounds, strict=True))
    cuts, shape = [], []
    for group in entry.theirs.split():
        start, stop = wanted[group[0]]
        inner = [sizes[letter] for letter in group[1:]]
        cuts.append(slice(start * math.prod(inner), stop * math.prod(inner)))
        shape += [stop - start, *inner]
    leads = {group[0] for group in entry.theirs.split()}
    letters = entry.theirs.replace(" ", "")
    block = tensor[tuple(cuts)].reshape(shape).transpose([letters.index(x) for x in entry.ours])
    return block[tuple(slice(None) if x in leads else slice(*wanted[x]) for x in entry.ours)]


def _open_tensors(directory: Path, stack: contextlib.ExitStack) -> dict[str, tuple[Path, Any]]:
    """Returns {HF name: (its file, lazy slice)} of all tensors but the old buffers."""
    files, weight_map = _find_files(directory)
    tensors: dict[str, tuple[Path, Any]] = {}
    for file in files:
        try:
            opened = stack.enter_context(safe_open(file, "numpy"))
            lazy = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{file} is not whole; copy it again ({error})") from None
        for name, tensor in lazy.items():
            if name in tensors:
                raise ValueError(f"duplicate tensor {name}: in {tensors[name][0]} and in {file}")
            tensors[name] = file, tensor
    if weight_map is not None:
        for name in sorted(weight_map.keys() | tensors.keys()):
            found = tensors[name][0].name if name in tensors else "no file"
            if weight_map.get(name, "no file") != found:
                kind = "extra" if name not in weight_map else "missing"
                raise ValueError(
                    f"{kind} tensor {name}: {directory / INDEX} says it is in "
                    f"{weight_map.get(name, 'no file')}, but it is in {found}"
                )
    return {name: tensor for name, tensor in tensors.items() if not BUFFERS.fullmatch(name)}


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


def _check_tensors(
    directory: Path, tensors: Mapping[str, tuple[Path, Any]], config: NeoxConfig
) -> None:
    expected = {name: _hf_shape(config, TABLE[path]) for name, path, _ in hf_tensors(config)}
    for name, shape in expected.items():
        if name not in tensors:
            raise ValueError(f"missing tensor {name} of shape {shape} in {directory}")
    for name, (file, tensor) in tensors.items():
        found = tuple(tensor.get_shape())
        if name not in expected:
            raise ValueError(f"extra tensor {name} of shape {found} in {file}: no such parameter")
        if found != expected[name]:
            raise ValueError(
                f"misshapen tensor {name} in {file}: {found}, but config.json asks for "
                f"{expected[name]}"
            )
        if tensor.get_dtype() not in ("F32", "F16", "BF16"):
            raise ValueError(
                f"tensor {name} in {file} is {tensor.get_dtype()}; only F32, F16 and BF16 are read"
            )


# ---- writing


def to_hf(config: NeoxConfig, params: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (HF name, tensor) of a tree of numpy arrays, one tensor at a time."""
    flat = flatten_dict(params, sep="/")
    for name, path, n in hf_tensors(config):
        entry = TABLE[path]
        array = flat[path] if n is None else flat[path][n]
        order = [entry.ours.index(letter) for letter in entry.theirs if letter != " "]
        yield name, array.transpose(order).reshape(_hf_shape(config, entry))


def write_weights(
    directory: Path, config: NeoxConfig, params: Any, dtype: str, max_file_bytes: int = 5 * 10**9
) -> None:
    """Writes safetensors of at most `max_file_bytes` each, with an index if they are several.

    Args:
      params: numpy arrays.
      dtype: "float32" or "bfloat16".
    Raises:
      OSError: the directory cannot be written.
    """
    itemsize = DTYPES[dtype].itemsize
    files = _plan_files(config, itemsize, max_file_bytes)
    names = ["model.safetensors"]
    if len(files) > 1:
        names = [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    tensors = to_hf(config, params)
    for name, shapes in zip(tqdm(names, desc="writing", disable=None), files, strict=True):
        block = {
            tensor: np.ascontiguousarray(array.astype(DTYPES[dtype], copy=False))
            for tensor, array in itertools.islice(tensors, len(shapes))
        }
        try:
            save_file(block, directory / name, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"cannot write {directory / name}: {error}") from None
    if len(files) > 1:
        total = itemsize * sum(math.prod(shape) for shapes in files for shape in shapes.values())
        weight_map = {
            tensor: name for name, shapes in zip(names, files, strict=True) for tensor in shapes
        }
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _plan_files(
    config: NeoxConfig, itemsize: int, max_file_bytes: int
) -> list[dict[str, tuple[int, ...]]]:
    """Returns the tensors of each file with their shapes, in the order of the forward pass."""
    files: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, path, _ in hf_tensors(config):
        shape = _hf_shape(config, TABLE[path])
        size = math.prod(shape) * itemsize
        if files[-1] and filled + size > max_file_bytes:
            files.append({})
            filled = 0
        files[-1][name] = shape
        filled += size
    return files
