"""The whole road on a laptop: 6,836,224 parameters on the sample corpus, minutes on two cores.

Command:  make quickstart, which runs
          python -m polyglot_jax.train --experiment=ko_tiny --workdir=quickstart/sample/run
Hardware: 2 CPU cores, about 6 minutes.
Tokens:   400 steps x 8 sequences x 256 = 0.8M, 1.4 epochs of the sample's train split.
Numbers:  ours. The shape keeps the habits of the larger models (parallel residual, half of each
          head rotated, untied head); batch, steps and learning rate were chosen by running it.
"""

from polyglot_jax.config import (
    DataConfig,
    DataPhase,
    Experiment,
    HealthConfig,
    MeshConfig,
    NeoxConfig,
    OptimizerConfig,
    SourceConfig,
    TrainConfig,
)

experiment = Experiment(
    name="ko_tiny",
    model=NeoxConfig(
        vocab_size=4096,
        num_layers=6,
        d_model=256,
        num_heads=4,
        d_ff=1024,
        rotary_pct=0.5,
        max_seq_len=256,
        compute_dtype="float32",  # CPUs are slower in bfloat16
    ),
    data=DataConfig(
        seq_len=256,
        plan=(DataPhase(sources=(SourceConfig(path="quickstart/sample/shards"),)),),
    ),
    optimizer=OptimizerConfig(
        learning_rate=2e-3,
        min_learning_rate=2e-4,
        warmup_fraction=0.05,
    ),
    train=TrainConfig(
        steps=400,
        batch_size=8,
        eval_every=100,
        checkpoint_every=100,
    ),
    health=HealthConfig(probe_every=100),
    mesh=MeshConfig(),
)
