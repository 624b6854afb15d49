"""Names of topologies, and what is said where one cannot be had."""

import pytest

from polyglot_jax.plan import hardware
from polyglot_jax.plan.hardware import HARDWARE, Topology, open_topology, target_config


def test_every_device_has_a_peak() -> None:
    assert all(h.peak_flops > 0 for h in HARDWARE.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "unknown hardware 'v9' .*known: v4"),
        ("a100-80g", r"takes a shape such as a100-80g:32x8"),
        ("a100-80g:8", r"takes a shape such as a100-80g:32x8"),
        ("v5p:16x16", r"takes a shape such as v5p:4x4x4"),
        ("v5e:4x4x4", r"takes a shape such as v5e:16x16"),
        ("v6e:32x32", "a slice of v6e has at most 256 chips"),
        ("v4:100x100x100", "a slice of v4 has at most 4096 chips"),
        ("1000*v5e:16x16", "more than 65536 devices"),
        ("a100-80g:100000x8", "more than 65536 devices"),
        ("2*h100:1x8", r"only slices of TPUs are counted, as in 2\*v5e:16x16"),
        ("two*v5e:4x4", r"only slices of TPUs are counted, as in 2\*v5e:16x16"),
        ("0*v5e:4x4", r"only slices of TPUs are counted, as in 2\*v5e:16x16"),
    ],
)
def test_names_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_topology(name)


@pytest.mark.parametrize("name", ["v5e:4x4", "h100:1x8"])
def test_a_missing_compiler_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=r"make plan-env.*pip install -e '\.\[plan\]'"):
        open_topology(name)


def test_the_target_describes_the_device() -> None:
    text = target_config(HARDWARE["h200"])
    assert "device_memory_size: 150110000000" in text
    assert "memory_bandwidth: 4800000000000" in text
    assert "cuda_compute_capability { major: 9 minor: 0" in text
    assert 'device_description_str: "NVIDIA H200"' in text


def test_fast_links_end_at_the_node() -> None:
    from tests.plan.made import topology

    assert topology("h100:4x8", 32).per_host == 8
    assert topology("v5e:16x16", 256).per_host == 256


def test_fast_links_end_at_the_slice() -> None:
    slices = Topology("2*v5e:16x16", HARDWARE["v5e"], (None,) * 512, slices=2)
    assert slices.per_host == 256
    assert all(h.network < h.link < h.memory_bandwidth for h in HARDWARE.values())
