"""The attention kernels of hardware that is not here, compiled by its own compilers at full length.

Their limits (shared memory, vector memory) are the compilers' own: too large a tile fails here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from polyglot_jax.attention import Device, attention, compiling_for
from polyglot_jax.config import MeshConfig
from polyglot_jax.mesh import make_mesh
from polyglot_jax.plan.hardware import open_topology

pytestmark = pytest.mark.plan
pytest.importorskip("libtpu", reason="the compilers are not here: make test-plan")


def compiled_text(kernel: str, devices: Any, config: MeshConfig, head_dim: int) -> str:
    """Returns the program of output and gradients for sequences of 2,048 tokens."""
    x_BTHK = jax.ShapeDtypeStruct((8, 2048, 4, head_dim), jnp.bfloat16)

    def forward_and_backward(q: Any, k: Any, v: Any, cotangent: Any) -> Any:
        out, pullback = jax.vjp(lambda *qkv: attention(*qkv, kernel=kernel), q, k, v)
        return out, pullback(cotangent)

    with compiling_for(Device.of(devices[0])), jax.set_mesh(make_mesh(config, devices)):
        return jax.jit(forward_and_backward).lower(*[x_BTHK] * 4).compile().as_text()


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("topology", ["v5e:2x2", "v4:2x2x1", "v5p:2x2x1", "v6e:2x2"])
def test_tpus_run_splash(topology, head_dim):
    devices = open_topology(topology).devices
    text = compiled_text("auto", devices, MeshConfig(fsdp=2, tensor=2), head_dim)
    assert text.count('custom_call_target="tpu_custom_call"') == 3  # forward, and twice backward
    assert "all-gather" not in text
    assert "all-to-all" not in text


@pytest.mark.parametrize("topology", ["a100-80g:1x4", "h100:1x4"])
def test_gpus_run_triton_with_wide_heads(topology):
    devices = open_topology(topology).devices
    text = compiled_text("triton", devices, MeshConfig(fsdp=2, tensor=2), 256)
    assert "mha_backward" in text
    assert "all-gather" not in text


def test_data_crosses_slices_of_tpus():
    open_topology("v5e:4x4")  # sets up the compiler
    from jax.experimental import topologies

    slices = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:4x4", num_slices=2
    ).devices
    for config in (MeshConfig(fsdp=8, tensor=2), MeshConfig(fsdp=4, tensor=4)):
        mesh = make_mesh(config, slices)
        assert mesh.shape["data"] == 2
        for number, part in enumerate(mesh.devices):
            assert {device.slice_index for device in part.flat} == {number}
