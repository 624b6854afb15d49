r"""An East-Asian model of 1,628,557,312 parameters, in eight languages.

Korean, Chinese, Japanese, Indonesian, Malay, Vietnamese, Thai and English.

Command:  scripts/gpu_node.sh run --experiment=east_asian_1p3b --workdir=runs/east_asian_1p3b \
              --set data.plan.0.sources.0.path=/where/your/shards/are/ko
          (sources are numbered in the order ko, zh, ja, id, ms, vi, th, en)
Hardware: as ko_1p3b: one node of 8 x A100-80G; more nodes widen `mesh.data` (then lower
          train.accumulation).
Tokens:   102,000 steps x 1,024 sequences x 2,048 = 213.9e9, as ko_1p3b. Of Malay it reads
          13e9, several epochs of what CC-100 has: weigh it down where you have no more.
Numbers:  ours; Polyglot's team named such a model as its next but published none. Shape, batch,
          steps, learning rate and all else but vocabulary and data: ko_1p3b. Vocabulary: the
          recipe `east_asian` of tokenizer.train, 102,449 ids. Weights: the recipe's alpha, a share
          of the sequences that goes with the size of a language to the power of 0.3 (XLM-R, arXiv
          1911.02116; mT5, arXiv 2010.11934). Sizes: CC-100 in GiB (XLM-R, table 6):
          ko 54.2, zh 63.5, ja 69.3, id 148.3, ms 8.5, vi 137.3, th 71.7, en 300.8. Replace them by
          those of your corpus.
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
    name="east_asian_1p3b",
    model=NeoxConfig(
        vocab_size=102_528,  # 102,449 padded to a multiple of 128
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
                    SourceConfig(path="data/east_asian/ko", weight=0.109),
                    SourceConfig(path="data/east_asian/zh", weight=0.115),
                    SourceConfig(path="data/east_asian/ja", weight=0.118),
                    SourceConfig(path="data/east_asian/id", weight=0.148),
                    SourceConfig(path="data/east_asian/ms", weight=0.063),
                    SourceConfig(path="data/east_asian/vi", weight=0.145),
                    SourceConfig(path="data/east_asian/th", weight=0.119),
                    SourceConfig(path="data/east_asian/en", weight=0.183),
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
