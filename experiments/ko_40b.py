r"""A Korean model of 39,152,664,576 parameters: a shape for plans, which nobody has trained.

Command:  sbatch --nodes=32 scripts/slurm.sbatch --experiment=ko_40b \
              --workdir=/shared/runs/ko_40b \
              --set data.plan.0.sources.0.path=/shared/ko
Hardware: 256 x H100 or A100 of 80 GB (32 nodes of 8), compiled for the latter (docs/scale.md) and
          never run: parameters, gradients and two moments in float32 are 626 GB, 20 GB a GPU over
          tensor=4 and fsdp=8. Four nodes hold one replica; data=8 of them.
Tokens:   373,400 steps x 1,024 sequences x 2,048 = 783.1e9, which is 20 for each parameter
          (Hoffmann et al., arXiv 2203.15556): about four epochs of the 863 GB of Polyglot-Ko, as
          many as cost little (Muennighoff et al., arXiv 2305.16264).
Numbers:  ours: no such model was published. The shape (48 layers, 8,192, 64 heads of 128 dims, of
          which 64 are rotated) continues that of Polyglot-Ko. Learning rate 0.97e-4 and its floor
          of a tenth: GPT-NeoX-20B (arXiv 2204.06745), the nearest model of the same code. Betas,
          weight decay, clipping, warm-up and initialisers: Pythia-12B's (arXiv 2304.01373).
          GPT-NeoX's fused GELU is the tanh form; "gelu" (erf) is what the published HF configs say.
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
    name="ko_40b",
    model=NeoxConfig(
        vocab_size=30_080,  # 30,003 padded to a multiple of 128
        num_layers=48,
        d_model=8192,
        num_heads=64,
        d_ff=32_768,
        rotary_pct=0.5,  # 64 of 128 dims
        init="normal",
        remat="full",
    ),
    data=DataConfig(
        seq_len=2048,
        plan=(DataPhase(sources=(SourceConfig(path="data/ko/shards"),)),),
    ),
    optimizer=OptimizerConfig(
        learning_rate=0.97e-4,
        min_learning_rate=0.97e-5,
        schedule="neox_cosine",
        warmup_fraction=0.01,
    ),
    train=TrainConfig(
        steps=373_400,
        batch_size=1024,
        accumulation=4,
        eval_every=2000,
        checkpoint_every=2000,
    ),
    mesh=MeshConfig(data=8, fsdp=8, tensor=4),
)
