r"""A 131M Korean model on one GPU: a first real run, and the base of ablations.

Command:  scripts/gpu_node.sh run --experiment=ko_small --workdir=runs/ko_small \
              --set data.plan.0.sources.0.path=/where/your/shards/are
Hardware: one GPU with 24 GB or more; with 80 GB, --set train.accumulation=8 is faster.
Tokens:   5,000 steps x 256 sequences x 2,048 = 2.62e9, which is 20 for each of the 131,258,880
          parameters (Hoffmann et al., arXiv 2203.15556).
Numbers:  shape (12 layers, 768, 12 heads, rotary_pct 0.25), learning rate 6e-4 and its floor of a
          tenth, betas, weight decay, warm-up and initialisers: Pythia-160M (arXiv 2304.01373). The
          vocabulary is Polyglot-Ko's. Ours: the batch (a quarter of Pythia's 1,024, so that 2.6e9
          tokens are 5,000 updates), accumulation and remat (by arithmetic; not measured).
          GPT-NeoX's fused GELU is the tanh form; "gelu" (erf) is what the published HF configs say.
"""

from polyglot_jax.config import (
    DataConfig,
    DataPhase,
    Experiment,
    NeoxConfig,
    OptimizerConfig,
    SourceConfig,
    TrainConfig,
)

experiment = Experiment(
    name="ko_small",
    model=NeoxConfig(
        vocab_size=30_080,  # 30,003 padded to a multiple of 128
        num_layers=12,
        d_model=768,
        num_heads=12,
        d_ff=3072,
        rotary_pct=0.25,  # 16 of 64 dims
        init="small_wang",
    ),
    data=DataConfig(
        seq_len=2048,
        plan=(DataPhase(sources=(SourceConfig(path="data/ko/shards"),)),),
    ),
    optimizer=OptimizerConfig(
        learning_rate=6e-4,
        min_learning_rate=6e-5,
        schedule="neox_cosine",
        warmup_fraction=0.01,
    ),
    train=TrainConfig(
        steps=5_000,
        batch_size=256,
        accumulation=32,
        eval_every=250,
        checkpoint_every=500,
    ),
)
