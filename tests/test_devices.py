"""Peak speeds: the strings jax gives are found, and nothing is made up for the others."""

import jax
import pytest

from polyglot_jax.devices import PEAK_FLOPS, peak_flops


@pytest.mark.parametrize(
    ("device_kind", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H200", 989.4),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
    ],
)
def test_known_devices(device_kind: str, teraflops: float) -> None:
    assert peak_flops(device_kind) == teraflops * 1e12


@pytest.mark.parametrize(
    # Names that contain a known one: a match by prefix would report a peak that is not theirs.
    "device_kind",
    ["cpu", "", "NVIDIA H200 MIG 1g.18gb", "NVIDIA L40", "TPU v4 lite", "NVIDIA A100"],
)
def test_unknown_devices_have_no_peak(device_kind: str) -> None:
    assert peak_flops(device_kind) is None


def test_the_device_of_the_tests_has_no_peak() -> None:
    assert peak_flops(jax.devices("cpu")[0].device_kind) is None


def test_no_peak_counts_sparsity() -> None:
    assert max(PEAK_FLOPS.values()) < 1000e12  # the sparse rate of an H100 is 1,979e12
