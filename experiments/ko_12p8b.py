r"""Polyglot-Ko 12.8B: 12,893,603,840 parameters.

The card's 12,898,631,680 is the training-time count of four model-parallel ranks: the vocabulary
padded to 30,208, norms and row-parallel biases counted on each rank.

Command:  sbatch --nodes=32 scripts/slurm.sbatch --experiment=ko_12p8b \
              --workdir=/shared/runs/ko_12p8b \
              --set data.plan.0.sources.0.path=/shared/ko
Hardware: the report's 256 x A100 (32 nodes of 8), here of 80 GB: tensor=4 and fsdp=2 inside a node,
          data=32 across nodes.
Tokens:   301,000 steps x 256 sequences x 2,048 = 157.8e9; the card says 167B, and the difference is
          unexplained.
Numbers:  shape and steps: the model's HF config and card; batch: the report (arXiv 2306.02254),
          read as "kept at 256". The original's optimizer settings are not public. Learning rate
          1.2e-4 and its floor of a tenth, betas, weight decay, clipping, warm-up and initialisers:
          Pythia-12B (arXiv 2304.01373), the nearest row of the same team, code and year; the
          team's later configs agree (GPT-NeoX commit 8226bfbc, configs/polyglot-v2, 12B). Pythia's
          batch is 1,024. Mesh and remat: ours, compiled for that machine but not run on it
          (docs/scale.md); each model replica of 8 GPUs takes 8 sequences, so nothing is
          accumulated.
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
    name="ko_12p8b",
    model=NeoxConfig(
        vocab_size=30_080,  # 30,003 padded to a multiple of 128
        num_layers=40,
        d_model=5120,
        num_heads=40,
        d_ff=20_480,
        rotary_pct=0.5,  # 64 of 128 dims
        init="normal",
        remat="dots",
    ),
    data=DataConfig(
        seq_len=2048,
        plan=(DataPhase(sources=(SourceConfig(path="data/ko/shards"),)),),
    ),
    optimizer=OptimizerConfig(
        learning_rate=1.2e-4,
        min_learning_rate=1.2e-5,
        schedule="neox_cosine",
        warmup_fraction=0.01,
    ),
    train=TrainConfig(
        steps=301_000,
        batch_size=256,
        eval_every=2000,
        checkpoint_every=2000,
    ),
    mesh=MeshConfig(data=32, fsdp=2, tensor=4),
)
