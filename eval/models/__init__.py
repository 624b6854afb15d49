"""Models to be measured: ours, run by JAX, and any causal model of transformers, run by torch."""

import json
from typing import Literal

from etils import epath

from eval.request import Model
from polyglot_jax.config import MeshConfig

Backend = Literal["auto", "jax", "torch"]


def load(
    path: epath.PathLike,
    *,
    backend: Backend = "auto",
    dtype: Literal["float32", "bfloat16"] | None = None,
    mesh: MeshConfig | None = None,
) -> Model:
    """Returns the model of an HF directory or of WORKDIR[@STEP|@best] of a training run.

    Args:
      backend: "jax" for GPT-NeoX (ours), "torch" for whatever `AutoModelForCausalLM` reads; "auto"
        takes jax for a workdir and for an HF directory of model_type gpt_neox, else torch.
      dtype: to compute in; None is float32 on a CPU and what the model was stored in elsewhere.
      mesh: of the devices, for jax; None is one device.
    Raises:
      ValueError: there is no such model, or it is not one that the backend can run.
    """
    if backend == "auto":
        # A training run has no such file, or one that describes the run.
        backend = "jax" if _model_type(epath.Path(path)) in ("gpt_neox", None) else "torch"
    if backend == "jax":
        from eval.models import jax_neox

        return jax_neox.load(path, dtype=dtype, mesh=mesh)
    from eval.models import torch_hf

    return torch_hf.load(path, dtype=dtype)


def _model_type(directory: epath.Path) -> str | None:
    config = directory / "config.json"
    if not config.exists():
        return None
    try:
        return json.loads(config.read_text()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{config} is not the configuration of a model: {error}") from None
