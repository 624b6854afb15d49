"""Peak speeds of accelerators, for MFU.

A device that is not in the table has no peak: none is guessed.
"""

# Dense bfloat16 FLOP/s with float32 accumulation of one jax device, by `device.device_kind`.
# Vendors print twice the dense rate where they count 2:4 sparsity ("1,979 teraFLOPS"); halved here.
# TPU v2, v3 and v7x are left out: there a jax device is half a chip.
PEAK_FLOPS: dict[str, float] = {
    # NVIDIA A100 Tensor Core GPU datasheet
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    # NVIDIA H100 Tensor Core GPU architecture whitepaper (SXM5, PCIe) and datasheet (NVL)
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835.5e12,
    # NVIDIA H200 Tensor Core GPU datasheet: the arithmetic of the H100
    "NVIDIA H200": 989.4e12,
    "NVIDIA H200 NVL": 835.5e12,
    # NVIDIA L4 and L40S datasheets
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362.05e12,
    # NVIDIA Ampere GA102 and Ada GPU architecture whitepapers, BF16 with FP32 accumulate
    "NVIDIA RTX A6000": 154.8e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
    # Google Cloud documentation, "TPU versions": peak compute per chip (bf16)
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,  # v5e
    "TPU v5": 459e12,  # v5p
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,  # v6e
    "TPU v6e": 918e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Returns the dense bfloat16 peak of one device in FLOP/s, None where it is not known.

    >>> peak_flops("NVIDIA A100-SXM4-80GB")
    312000000000000.0
    """
    return PEAK_FLOPS.get(device_kind)
