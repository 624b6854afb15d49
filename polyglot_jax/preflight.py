"""What a training run is made of, put together before anything slow: all that can be refused is.

Only configurations, manifests and shapes are looked at. Nothing is written, compiled or restored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from polyglot_jax import hf_config, selection, workdirs
from polyglot_jax.attention import choose_kernel
from polyglot_jax.config import Experiment
from polyglot_jax.convert import read_hf_config
from polyglot_jax.data.held_out import HeldOut, held_out_fingerprints, open_held_outs
from polyglot_jax.data.mixture import Mixture, open_plan
from polyglot_jax.data.shards import check_tokenizer
from polyglot_jax.health.probe import jit_probe
from polyglot_jax.mesh import make_mesh
from polyglot_jax.step import TrainState, abstract_state, shardings_of
from polyglot_jax.vocabulary import Vocabulary, load_vocabulary


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A run's parts, which fit together. Built by `check`."""

    mesh: Mesh
    abstract: TrainState  # of `jax.ShapeDtypeStruct`s, with their shardings
    kernel: str  # of attention
    data: Mixture
    fingerprint: dict[str, Any]  # of the data, held-out splits included
    held_outs: Mapping[int, HeldOut]  # by `sources_since`
    tokenizer: epath.Path
    probe: tuple[Callable[[Any], jax.Array], Vocabulary] | None  # None: it is never due


def check(experiment: Experiment, workdir: epath.Path, last_step: int) -> Parts:
    """Returns the parts of a run up to `last_step`; all processes call it.

    Raises:
      ValueError: the mesh does not fit the devices, the data is missing or damaged, or the workdir
        holds something else than this run.
    """
    t, health = experiment.train, experiment.health
    if last_step > t.steps:
        raise ValueError(
            f"--steps={last_step} is beyond train.steps={t.steps}, where the schedule ends; "
            f"for a longer run, --set train.steps={last_step}"
        )
    mesh = make_mesh(experiment.mesh)
    microbatch = t.batch_size // t.accumulation
    if microbatch % (mesh.shape["data"] * mesh.shape["fsdp"]):
        raise ValueError(
            f"train.batch_size={t.batch_size} in train.accumulation={t.accumulation} microbatches "
            f"gives {microbatch} sequences, which data * fsdp of the mesh {dict(mesh.shape)} does "
            "not divide; change one of them"
        )
    abstract = abstract_state(experiment, mesh)
    kernel = choose_kernel(
        experiment.model.attention,
        head_dim=experiment.model.head_dim,
        seq_len=experiment.data.seq_len,
        dtype=experiment.model.compute_dtype,
    )
    data = open_plan(experiment.data, t.batch_size)
    # As many sequences at a time as training holds: a whole batch may not fit the devices.
    held_outs = open_held_outs(experiment.data, microbatch, t.eval_sequences)
    vocab_size = data.sources[0].manifest.vocab_size
    if vocab_size > experiment.model.vocab_size:
        raise ValueError(
            f"model.vocab_size={experiment.model.vocab_size} is smaller than the tokenizer's "
            f"{vocab_size} ids; set it to at least that, rounded up to a multiple of 128"
        )
    tokenizer = check_tokenizer(data.sources[0].split_dir.parent, data.sources[0].manifest)
    probe = None
    if health.probe_every and health.probe_every <= last_step:
        vocabulary = load_vocabulary(tokenizer)
        shardings = shardings_of(abstract.params)
        probes = jit_probe(experiment.model, mesh, shardings, vocabulary, health.probe_prompts)
        probe = probes, vocabulary
    if t.init_from:
        hf_config.check_same(experiment.model, read_hf_config(t.init_from), t.init_from)
    fingerprint = data.fingerprint() | {"held_out": held_out_fingerprints(held_outs, data)}
    workdirs.check_start(experiment, workdir, fingerprint)
    selection.read_tags(workdir)  # a spoilt file is known before the first save asks for it
    return Parts(
        mesh=mesh,
        abstract=abstract,
        kernel=kernel,
        data=data,
        fingerprint=fingerprint,
        held_outs=held_outs,
        tokenizer=tokenizer,
        probe=probe,
    )
