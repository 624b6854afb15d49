r"""A Romance model of 1,414,123,520 parameters, in five languages.

Spanish, Portuguese, French, Romanian and Italian.

Command:  scripts/gpu_node.sh run --experiment=romance_1p3b --workdir=runs/romance_1p3b \
              --set data.plan.0.sources.0.path=/where/your/shards/are/es
          (sources are numbered in the order es, pt, fr, ro, it)
Hardware: as ko_1p3b: one node of 8 x A100-80G; more nodes widen `mesh.data` (then lower
          train.accumulation).
Tokens:   102,000 steps x 1,024 sequences x 2,048 = 213.9e9, as ko_1p3b. CC-100 has
          fewer in these languages: bring more text, or lower train.steps.
Numbers:  ours; Polyglot's team named such a model as its next but published none. Shape, batch,
          steps, learning rate and all else but vocabulary and data: ko_1p3b. Vocabulary: the
          recipe `romance` of tokenizer.train, 50,049 ids. Weights: the recipe's alpha, a share of
          the sequences that goes with the size of a language to the power of 0.3 (XLM-R, arXiv
          1911.02116; mT5, arXiv 2010.11934). Sizes: CC-100 in GiB (XLM-R, table 6):
          es 53.3, pt 49.1, fr 56.8, ro 61.4, it 30.2. Replace them by those of your corpus.
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
    name="romance_1p3b",
    model=NeoxConfig(
        vocab_size=50_176,  # 50,049 padded to a multiple of 128
        num_layers=24,
        d_model=2048,
        num_heads=16,
        d_ff=8192,
        rotary_pct=0.5,  # 64 of 128 dims
        init="small_wang",
        remat="dots",
    ),
    data=DataConfig(
        seq_len=2048,
        plan=(
            DataPhase(
                sources=(
                    SourceConfig(path="data/romance/es", weight=0.205),
                    SourceConfig(path="data/romance/pt", weight=0.2),
                    SourceConfig(path="data/romance/fr", weight=0.209),
                    SourceConfig(path="data/romance/ro", weight=0.214),
                    SourceConfig(path="data/romance/it", weight=0.172),
                ),
            ),
        ),
    ),
    optimizer=OptimizerConfig(
        learning_rate=2e-4,
        min_learning_rate=2e-5,
        schedule="neox_cosine",
        warmup_fraction=0.01,
    ),
    train=TrainConfig(
        steps=102_000,
        batch_size=1024,
        accumulation=16,
        eval_every=1000,
        checkpoint_every=1000,
    ),
    mesh=MeshConfig(fsdp=8),
)
