"""Safetensors written and read in parts: the library's own bytes, and the same values."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from polyglot_jax.tensor_files import DTYPES, INDEX, find_tensors, new_tensors


def draw(dtype):
    rng = np.random.default_rng(0)
    shapes = {"b.weight": (6, 4), "a.bias": (5,), "하나": (3, 2, 2), "b": (1, 7)}
    return {k: rng.standard_normal(v, np.float32).astype(dtype) for k, v in shapes.items()}


def write(directory, tensors, dtype, max_file_bytes=10**9, order=None):
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    with new_tensors(directory, shapes, dtype, max_file_bytes) as put:
        for name in order or tensors:
            put(name, tensors[name])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stream_in_any_order_gives_the_bytes_of_the_library(tmp_path, dtype):
    tensors = draw(DTYPES[dtype])
    write(tmp_path, tensors, dtype, order=sorted(tensors, reverse=True))
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_tensors_of_several_files(tmp_path):
    tensors = draw(np.float32)
    write(tmp_path, tensors, "float32", max_file_bytes=100)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [*(f"model-0000{i}-of-00002.safetensors" for i in (1, 2)), INDEX]
    found = find_tensors(tmp_path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        whole = (slice(None),) * tensor.ndim
        np.testing.assert_array_equal(found[name][whole], tensor)


@pytest.mark.parametrize("cuts", [np.s_[1:3, :], np.s_[:, 1:3], np.s_[2:6, 0:2], np.s_[4:4, :]])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_part_of_a_tensor(tmp_path, dtype, cuts):
    tensors = draw(DTYPES[dtype])
    write(tmp_path, tensors, dtype)
    part = find_tensors(tmp_path)["b.weight"][cuts]
    np.testing.assert_array_equal(part, tensors["b.weight"][cuts])
    assert part.base is None or not isinstance(part.base, np.memmap)  # the file may go


def test_put_refuses_what_the_header_does_not_say(tmp_path):
    with (
        pytest.raises(AssertionError),
        new_tensors(tmp_path, {"a": (2,)}, "float32", 100) as put,
    ):
        put("a", np.zeros(3, np.float32))
