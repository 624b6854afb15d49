"""The peer: the same training step with transformers' GPTNeoX in PyTorch.

sdpa attention, fused AdamW with the same groups of decay, and clipping by the global norm. On a GPU
the parameters, the gradients and both moments are float32 as ours are, the forward pass runs under
bfloat16 autocast, and `torch.compile` compiles it together with the loss.
"""

import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
import transformers

from benchmarks import child, record, workload
from benchmarks.child import Row
from polyglot_jax.config import Experiment, load_experiment


def make_model(experiment: Experiment) -> torch.nn.Module:
    """Returns a randomly initialised float32 GPTNeoXForCausalLM of the experiment's shape."""
    m = experiment.model
    config = transformers.GPTNeoXConfig(  # type: ignore[call-arg]
        vocab_size=m.vocab_size,
        hidden_size=m.d_model,
        num_hidden_layers=m.num_layers,
        num_attention_heads=m.num_heads,
        intermediate_size=m.d_ff,
        hidden_act={"gelu": "gelu", "gelu_tanh": "gelu_new"}[m.activation],
        rotary_pct=m.rotary_pct,
        rotary_emb_base=m.rotary_base,
        max_position_embeddings=m.max_seq_len,
        layer_norm_eps=m.layer_norm_eps,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return transformers.GPTNeoXForCausalLM(config).train()


def make_step(
    experiment: Experiment, device: str, backend: str | None
) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    """Returns the model and a function that does one update on the random batch: () -> loss.

    Args:
      backend: of torch.compile; None runs eagerly.
    """
    torch.manual_seed(0)
    o = experiment.optimizer
    with torch.device(device):
        model = make_model(experiment)
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": o.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=o.learning_rate, betas=(o.b1, o.b2), eps=o.eps, fused=True
    )
    batch = workload.random_batch(experiment)
    inputs, targets = (
        torch.from_numpy(batch[name]).long().to(device) for name in ("inputs", "targets")
    )
    is_half = experiment.model.compute_dtype == "bfloat16"

    def loss_fn() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=is_half):
            logits = model(input_ids=inputs).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    compiled = torch.compile(loss_fn, backend=backend) if backend else loss_fn

    def step() -> torch.Tensor:
        loss = compiled()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, o.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return model, step


def attention_kernel(step: Callable[[], torch.Tensor]) -> str:
    """Returns the kernel that sdpa chose in one step: "flash", "cudnn", "efficient" or "math"."""
    with torch.profiler.profile() as profile:
        step()
    prefix = "aten::_scaled_dot_product_"
    names = {event.key for event in profile.key_averages() if event.key.startswith(prefix)}
    kernels = {name.removeprefix(prefix).partition("_attention")[0] for name in names}
    return ", ".join(sorted(kernels)) or "math"


# ---- run by benchmarks.child


def cpu_rounds(name: str, steps: int) -> Iterator[Row]:
    """Yields one row of facts, then one with the seconds of each round of `steps`, for ever."""
    torch.set_num_threads(record.cores())
    experiment = load_experiment(name)
    model, step = make_step(experiment, "cpu", backend=None)
    losses = [float(step()) for _ in range(2)]
    yield {
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": losses[0],
        "products_s": sum(p.count * _product_seconds(p) for p in workload.products(experiment)),
    }
    while True:
        start = time.perf_counter()
        for _ in range(steps):
            loss = step()
        loss.item()
        elapsed = time.perf_counter() - start
        yield {"seconds": elapsed, "peak_bytes": child.peak_bytes()}


def _product_seconds(product: workload.Product) -> float:
    left, right = torch.randn(product.left), torch.randn(product.right)

    def run(n: int) -> None:
        for _ in range(n):
            torch.einsum(product.einsum, left, right)

    run(1)
    return workload.median_seconds(run, 0.1)[0]


def gpu_step(name: str, overrides: list[str], seconds: float, backend: str) -> Iterator[Row]:
    """Yields one row: step time and memory of the torch step, or that memory ran out."""
    experiment = load_experiment(name, overrides)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    row: Row = {
        "side": "torch",
        "model": name,
        "microbatch": experiment.train.batch_size,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    try:
        start = time.perf_counter()
        model, step = make_step(experiment, device, backend)
        losses = [float(step()), float(step())]  # the first compiles
        row["compile_s"] = time.perf_counter() - start

        def run(n: int) -> None:
            for _ in range(n):
                loss = step()
            loss.item()

        median, spread = workload.median_seconds(run, seconds)
        row["kernel"] = attention_kernel(step)
    except torch.OutOfMemoryError:
        yield {**row, "status": "out of memory"}
        return
    yield {
        **row,
        "status": "ok",
        "parameters": sum(p.numel() for p in model.parameters()),
        "first_loss": losses[0],
        "step_s": median,
        "step_spread_s": spread,
        "tokens_per_s": workload.tokens_per_step(experiment) / median,
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }
