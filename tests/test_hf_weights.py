"""Weights in safetensors: there and back to the bit, into any mesh, refused if wrong."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from polyglot_jax import hf_weights
from polyglot_jax.config import MeshConfig, load_experiment
from polyglot_jax.hf_weights import read_weights, write_weights
from polyglot_jax.mesh import make_mesh
from polyglot_jax.step import abstract_state, shardings_of
from polyglot_jax.tensor_files import INDEX
from tests.oracle import check_equal, random_params, tiny

CONFIG = tiny(vocab_size=384)


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@pytest.fixture
def directory(tmp_path, params):
    path = tmp_path / "model"
    path.mkdir()
    write_weights(path, CONFIG, params, "float32")
    return path


def split_files(directory, params, max_file_bytes=50_000):
    (directory / "model.safetensors").unlink()
    write_weights(directory, CONFIG, params, "float32", max_file_bytes)
    return sorted(directory.glob("model-*.safetensors"))


def edit(file, change):
    """Rewrites a safetensors file with other tensors."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


# ---- there and back


def test_round_trip_is_exact(directory, params):
    assert [path.name for path in directory.iterdir()] == ["model.safetensors"]
    check_equal(read_weights(directory, CONFIG), params)


def test_several_files_with_an_index(directory, params):
    files = split_files(directory, params)
    assert len(files) > 2
    assert all(file.name.endswith(f"-of-{len(files):05d}.safetensors") for file in files)
    index = json.loads((directory / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in jax.tree.leaves(params))
    check_equal(read_weights(directory, CONFIG), params)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_is_read_as_float32(directory, params, dtype):
    def halve(tensors):
        for name in tensors:
            tensors[name] = tensors[name].astype(dtype)

    edit(directory / "model.safetensors", halve)
    rounded = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), params)
    check_equal(read_weights(directory, CONFIG), rounded)


def test_bfloat16_is_written(tmp_path, params):
    write_weights(tmp_path, CONFIG, params, "bfloat16")
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype.name for tensor in stored.values()} == {"bfloat16"}
    rounded = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), params)
    check_equal(read_weights(tmp_path, CONFIG), rounded)


def test_old_buffers_are_ignored(directory, params):
    def add(tensors):
        for name in ("bias", "masked_bias", "rotary_emb.inv_freq"):
            tensors[f"gpt_neox.layers.1.attention.{name}"] = np.ones(3, np.float32)

    edit(directory / "model.safetensors", add)
    check_equal(read_weights(directory, CONFIG), params)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2), (1, 4, 1), (4, 1, 2)])
def test_load_into_a_mesh(tmp_path, mesh):
    config = tiny(vocab_size=384, num_heads=4)
    params = random_params(config)
    write_weights(tmp_path, config, params, "float32")
    sizes = MeshConfig(data=mesh[0], fsdp=mesh[1], tensor=mesh[2])
    experiment = dataclasses.replace(load_experiment("ko_tiny"), model=config, mesh=sizes)
    devices = jax.devices()[: np.prod(mesh)]
    shardings = shardings_of(abstract_state(experiment, make_mesh(sizes, devices)).params)
    loaded = read_weights(tmp_path, config, shardings)
    check_equal(loaded, params)
    assert jax.tree.map(lambda x: x.sharding, loaded) == shardings


class CountedTensor:
    """Stands for a tensor in a file; counts the elements that are read of it."""

    def __init__(self, array):
        self.array, self.elements = array, 0

    def __getitem__(self, index):
        self.elements += self.array[index].size
        return self.array[index]


def test_only_the_wanted_slice_is_read():
    config = tiny(num_heads=4)
    kernel = random_params(config)["layers"]["attention"]["query_key_value"]["kernel"][0]
    entry = hf_weights.TABLE["layers/attention/query_key_value/kernel"]
    tensor = CountedTensor(kernel.transpose(1, 2, 3, 0).reshape(-1, config.d_model))
    bounds = ((12, 24), (1, 3), (0, 3), (0, 12))
    block = hf_weights._read_block(tensor, config, entry, bounds, np.dtype(np.float32))
    np.testing.assert_array_equal(block, kernel[12:24, 1:3])
    assert tensor.elements == kernel.size // 4 // 2


# ---- what is wrong is refused, each by its own message


def drop(tensors):
    del tensors["embed_out.weight"]


def add(tensors):
    tensors["gpt_neox.layers.2.mlp.dense_4h_to_h.bias"] = np.ones(48, np.float32)


def reshape(tensors):
    tensors["embed_out.weight"] = tensors["embed_out.weight"].T.copy()


def retype(tensors):
    tensors["embed_out.weight"] = tensors["embed_out.weight"].astype(np.int8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"missing tensor embed_out\.weight of shape \(384, 48\) in .*model$"),
        (add, r"extra tensor gpt_neox\.layers\.2\S+ in \S+/model\.safetensors of shape \(48,\)"),
        (reshape, r"misshapen tensor embed_out\.weight in \S+: \(48, 384\), but .* \(384, 48\)"),
        (retype, r"embed_out\.weight in \S+ is I8"),
    ],
)
def test_wrong_tensors(directory, change, message):
    edit(directory / "model.safetensors", change)
    with pytest.raises(ValueError, match=message):
        read_weights(directory, CONFIG)


IN_THE_MIDDLE = "gpt_neox.layers.0.attention.dense.bias"


def test_duplicate_tensor(directory, params):
    first, second, *_ = split_files(directory, params)
    name = "gpt_neox.embed_in.weight"
    edit(second, lambda tensors: tensors.update({name: load_file(first)[name]}))
    with pytest.raises(
        ValueError, match=r"duplicate tensor gpt_neox\.embed_in\S+: in .*1-of.*2-of"
    ):
        read_weights(directory, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop(IN_THE_MIDDLE), f"extra tensor {IN_THE_MIDDLE}: .* in no file"),
        (lambda m: m.update({"new": m["embed_out.weight"]}), "missing tensor new: .* no file"),
        (lambda m: m.update({"embed_out.weight": "model-9.safetensors"}), "does not exist"),
    ],
)
def test_index_that_does_not_fit_its_files(directory, params, change, message):
    split_files(directory, params)
    index = json.loads((directory / INDEX).read_text())
    change(index["weight_map"])
    (directory / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        read_weights(directory, CONFIG)


def test_damaged_files(directory):
    weights, index = directory / "model.safetensors", directory / INDEX
    index.write_text("[]")
    with pytest.raises(ValueError, match="holds both"):
        read_weights(directory, CONFIG)
    whole = weights.read_bytes()
    weights.unlink()
    with pytest.raises(ValueError, match="has no weight_map"):
        read_weights(directory, CONFIG)
    index.unlink()
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        read_weights(directory, CONFIG)
    weights.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="is not whole; copy it again"):
        read_weights(directory, CONFIG)


def test_pickles_are_refused(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin: pickles are not read.*save_pretrain"
    ):
        read_weights(directory, CONFIG)
