"""Held-out loss and bits per byte of a model: `python -m eval.held_out --model=DIR --data=SHARDS`.

Bits per byte are comparable between tokenizers, and with the byte 3-gram that --baseline fits on
the same training text.
"""

import itertools
from collections.abc import Iterator, Mapping

import jax
from absl import flags
from etils import epath
from tokenizers import Tokenizer

from eval import ngram
from polyglot_jax import cli
from polyglot_jax.config import DataConfig, DataPhase, MeshConfig, SourceConfig
from polyglot_jax.convert import load_model, split_step
from polyglot_jax.data.held_out import open_held_out
from polyglot_jax.data.shards import open_split
from polyglot_jax.evaluate import evaluate
from polyglot_jax.mesh import make_mesh
from polyglot_jax.metrics import read_metrics
from polyglot_jax.step import abstract_params, jit_eval_step, shardings_of
from polyglot_jax.workdirs import described

RECORDED = {f"held_out/{name}" for name in ("loss", "bits_per_byte", "tokens", "bytes")}


def main() -> None:
    values = flags.FLAGS
    result = evaluate_model(values.model, values.data, values.batch_size)
    if (epath.Path(values.model) / "metrics.jsonl").exists():
        recorded = [r for r in read_metrics(values.model) if r.keys() >= RECORDED]
        for first in recorded[:1]:
            shown = {name.removeprefix("held_out/"): value for name, value in first.items()}
            print(f"{values.model} at step {first['step']}: {_line(shown)}")
    print(f"{values.model}: {_line(result)}")
    if values.baseline:
        bits = ngram_bits_per_byte(values.data)
        print(f"byte 3-gram of the same training text (Kneser-Ney): {bits:.4f} bits per byte")


def _line(values: Mapping[str, float]) -> str:
    return (
        f"held-out loss {values['loss']:.4f}, {values['bits_per_byte']:.4f} bits per byte "
        f"({values['tokens']:,.0f} tokens, {values['bytes']:,.0f} bytes)"
    )


def evaluate_model(path: str, shards: str, batch_size: int) -> dict[str, float]:
    """Returns loss, bits_per_byte, tokens and bytes over the whole held-out split.

    Args:
      path: an HF directory, or WORKDIR[@STEP] of a training run.
      shards: a source directory; its tokenizer must be the model's.
    Raises:
      ValueError: the model or the shards cannot be read, or their tokenizers differ.
    """
    model, params, tokenizer = load_model(path)
    source = epath.Path(shards)
    if tokenizer.read_bytes() != (source / "tokenizer.json").read_bytes():
        raise ValueError(
            f"{shards} was encoded with another tokenizer.json than {tokenizer}; encode the text "
            "with the model's own"
        )
    data = DataConfig(
        seq_len=_trained_seq_len(path) or model.max_seq_len,
        plan=(DataPhase(sources=(SourceConfig(path=shards),)),),
    )
    mesh = make_mesh(MeshConfig(), jax.local_devices()[:1])
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, shardings_of(abstract_params(model, mesh)))
        return evaluate(jit_eval_step(model, mesh), placed, open_held_out(data, batch_size), mesh)


def _trained_seq_len(path: str) -> int | None:
    """Returns the length a run was trained on: its model may allow for more than it has seen."""
    experiment = described(split_step(path)[0])
    return experiment.data.seq_len if experiment else None


def ngram_bits_per_byte(shards: str) -> float:
    """Returns the held-out bits per byte of a 3-gram fitted on the train split's text."""
    model = ngram.fit(documents(epath.Path(shards) / "train"))
    return ngram.bits_per_byte(model, documents(epath.Path(shards) / "held_out"))


def documents(split_dir: epath.Path) -> Iterator[str]:
    """Yields the texts behind a split's tokens, without the separators that end them."""
    store = open_split(split_dir)
    tokenizer = Tokenizer.from_file(str(split_dir.parent / "tokenizer.json"))
    ends = store.document_ends().tolist()
    spans = itertools.pairwise([0, *ends])
    while batch := list(itertools.islice(spans, 1000)):  # reads a thousand at once
        starts, lengths = zip(*((start, end - start) for start, end in batch), strict=True)
        for tokens in store.read(starts, lengths):
            yield tokenizer.decode(tokens[:-1].tolist(), skip_special_tokens=False)


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "HF directory, or WORKDIR[@STEP] of a training run.")
    flags.DEFINE_string("data", None, "Source directory of token shards.")
    flags.DEFINE_integer("batch_size", 16, "Sequences at a time.", lower_bound=1)
    flags.DEFINE_bool("baseline", False, "Also fit a byte 3-gram on the train split's text.")
    flags.mark_flags_as_required(["model", "data"])
    cli.run(main)
