r"""Polyglot-Ko 3.8B: 3,809,974,272 parameters.

Command:  scripts/gpu_node.sh run --experiment=ko_3p8b --workdir=runs/ko_3p8b \
              --set data.plan.0.sources.0.path=/where/your/shards/are
Hardware: one node of 8 x A100-80G; more nodes widen `mesh.data` (then lower train.accumulation).
          The original ran on 256 A100.
Tokens:   105,000 steps x 1,024 sequences x 2,048 = 220.2e9 (published: 219B), about one epoch of
          the original's 863 GB. A longer run of it broke near the end of the epoch and an earlier
          checkpoint was published.
Numbers:  shape, batch and steps: the model's HF config and card and the report (arXiv 2306.02254).
          The original's optimizer settings are not public. Learning rate 1.6e-4 and its floor of a
          tenth, betas, weight decay, clipping, warm-up and initialisers: Pythia-2.8B
          (arXiv 2304.01373), the nearest row of the same team, code and year. Accumulation and
          remat: ours, compiled for that node but not run on it (docs/scale.md).
          GPT-NeoX's fused GELU, which training probably used, is the tanh form; "gelu" (erf) is
          what the published HF config says and what its users run.
"""

from polyglot_jax.config import (
    DataConfig,
    DataPhase,
    Experiment,
    MeshConfig,
    NeoxConfig,
    OptimizerConfig,
    SourceConfig,
    TrainConfig,
)

experiment = Experiment(
    name="ko_3p8b",
    model=NeoxConfig(
        vocab_size=30_080,  # 30,003 padded to a multiple of 128
        num_layers=32,
        d_model=3072,
        num_heads=24,
        d_ff=12_288,
        rotary_pct=0.5,  # 64 of 128 dims
        init="small_wang",
        remat="dots",
    ),
    data=DataConfig(
        seq_len=2048,
        plan=(DataPhase(sources=(SourceConfig(path="data/ko/shards"),)),),
    ),
    optimizer=OptimizerConfig(
        learning_rate=1.6e-4,
        min_learning_rate=1.6e-5,
        schedule="neox_cosine",
        warmup_fraction=0.01,
    ),
    train=TrainConfig(
        steps=105_000,
        batch_size=1024,
        accumulation=32,
        eval_every=1000,
        checkpoint_every=1000,
        keep_every=10_000,  # the original had to go back to earlier ones by hand
    ),
    mesh=MeshConfig(fsdp=8),
)
