"""The README.md of an HF directory: what the model is, what it saw, and what it cannot do."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from polyglot_jax.config import Experiment, NeoxConfig, from_dict
from polyglot_jax.data.manifest import Manifest, read_manifest
from polyglot_jax.extend import Extension
from polyglot_jax.models.neox import num_params
from polyglot_jax.tokens import PLACEHOLDERS

CITATION = """\
@misc{ko2023technical,
  title = {A Technical Report for Polyglot-Ko: Open-Source Large-Scale Korean Language Models},
  author = {Hyunwoong Ko and Kichang Yang and Minho Ryu and Taekyoon Choi and Seungmu Yang and
            Jiwung Hyun and Sungho Park and Kyubyong Park},
  year = {2023},
  eprint = {2306.02254},
  archivePrefix = {arXiv},
  primaryClass = {cs.CL}
}"""


def model_card(
    name: str,
    config: NeoxConfig,
    dtype: str,
    ids: Mapping[str, int],
    metadata: Mapping[str, Any],
    extension: Extension | None = None,
) -> str:
    """Returns the card in Markdown.

    Args:
      ids: {token: id} of the tokenizer.
      metadata: of the checkpoint, see `checkpoint.make_metadata` and `checkpoint.save_params`; or
        that of another HF directory, which then is its "made_from".
      extension: of the vocabulary, made in the conversion.
    """
    experiment = from_dict(metadata["experiment"]) if "experiment" in metadata else None
    made_from = metadata.get("made_from")
    what = (
        "A Korean causal language model of the GPT-NeoX architecture, in the shape of Polyglot-Ko"
    )
    sections = (
        _front_matter(licensed=made_from is None),
        f"# {name}",
        f"{what}, made from `{made_from}` with polyglot-jax: see that model's own card."
        if made_from
        else f"{what}, trained and converted with polyglot-jax.",
        "## Model\n\n" + _table(("", ""), _shape(config, dtype, len(ids))),
        *([_extension(extension)] if extension else []),
        "## Training data\n\n" + _data(experiment, metadata),
        "## Training\n\n" + _training(experiment, metadata),
        "## Personal information\n\n" + _personal_information(ids),
        _LIMITATIONS,
        _USE,
        "## Licence\n\nThe program that made these weights is licensed under Apache-2.0, as is "
        "Polyglot-Ko. Whether the weights may be passed on under it depends on the licences of "
        "the data above: check them first.",
        f"## Citation\n\nThe architecture and the recipe are Polyglot-Ko's:\n\n"
        f"```bibtex\n{CITATION}\n```",
    )
    return "\n\n".join(sections) + "\n"


def _front_matter(licensed: bool) -> str:
    licence = "license: apache-2.0\n" if licensed else ""  # else that of the other model
    return (
        f"---\nlanguage:\n- ko\n{licence}library_name: transformers\n"
        "pipeline_tag: text-generation\ntags:\n- causal-lm\n- gpt_neox\n---"
    )


def _extension(extension: Extension) -> str:
    specials = ", ".join(f"`{token}`" for token in extension.special_tokens)
    return (
        f"## Vocabulary extension\n\n{extension.summary()}{': ' if specials else ''}{specials}. "
        "Their rows in embedding and head are the means of the rows of the tokens they were cut "
        "into before, and **have not been trained**: train the model before it is used with them. "
        "Ids and rows of all other tokens are unchanged."
    )


def _shape(c: NeoxConfig, dtype: str, num_tokens: int) -> Iterable[tuple[str, str]]:
    return (
        ("parameters", f"{num_params(c):,}"),
        (
            "of these outside embedding and head",
            f"{num_params(c) - 2 * c.vocab_size * c.d_model:,}",
        ),
        ("layers", f"{c.num_layers}"),
        ("model dimension", f"{c.d_model:,}"),
        ("feed-forward dimension", f"{c.d_ff:,}"),
        ("attention heads", f"{c.num_heads} of {c.head_dim} dimensions"),
        ("context length", f"{c.max_seq_len:,} tokens"),
        ("vocabulary", f"{num_tokens:,} tokens in {c.vocab_size:,} rows"),
        ("positional encoding", f"rotary, {c.rotary_dims} of {c.head_dim} dimensions of each head"),
        ("activation", c.activation),
        ("stored as", dtype),
    )


def _data(experiment: Experiment | None, metadata: Mapping[str, Any]) -> str:
    phases = metadata.get("data", {}).get("plan", ())
    trained_on = {
        name: mark
        for phase in phases
        if phase["from_step"] < metadata["step"]
        for name, mark in phase["manifests"].items()
    }
    if experiment is None or not phases:
        return "Not recorded."
    if not trained_on:
        return "None: the model was not trained."
    paths = {source.path for phase in experiment.data.plan for source in phase.sources}
    at_hand = {manifest.fingerprint(): manifest for manifest in _manifests(paths)}
    rows = []
    for name, mark in trained_on.items():
        counts = ["not at hand"] * 3
        if mark in at_hand:
            shards = at_hand[mark]
            counts = [f"{n:,}" for n in (shards.documents, shards.tokens, shards.bytes)]
        rows.append((name, *counts))
    return _table(("source", "documents", "tokens", "bytes of text"), rows)


def _manifests(paths: Iterable[str]) -> Iterator[Manifest]:
    """Yields those that can still be read: a checkpoint outlives its shards, and moves."""
    for path in paths:
        with contextlib.suppress(ValueError, OSError):
            yield read_manifest(epath.Path(path) / "train")


def _training(experiment: Experiment | None, metadata: Mapping[str, Any]) -> str:
    rows = []
    if experiment is not None:
        tokens = metadata["step"] * experiment.train.batch_size * experiment.data.seq_len
        rows += [
            ("experiment", experiment.name),
            ("steps", f"{metadata['step']:,} of {experiment.train.steps:,}"),
            ("tokens", f"{tokens:,}"),
            ("batch", f"{experiment.train.batch_size:,} sequences of {experiment.data.seq_len:,}"),
            ("peak learning rate", f"{experiment.optimizer.learning_rate:g}"),
        ]
    rows.append(("code", metadata["git_commit"]))
    rows += [(package, version) for package, version in metadata["versions"].items()]
    return _table(("", ""), rows)


def _personal_information(ids: Mapping[str, int]) -> str:
    known = [
        (f"`{token}`", str(ids[token]), what)
        for token, what in PLACEHOLDERS.items()
        if token in ids
    ]
    if not known:
        return "The tokenizer has no tokens for masked personal information."
    return (
        "These tokens are reserved for masked personal information. Whether the training data was "
        "masked with them is not recorded: say it here before you publish the model.\n\n"
        + _table(("token", "id", "reserved for"), known)
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_LIMITATIONS = """\
## Limitations

The model predicts likely continuations of text; nothing in its training rewards truth. It was not
tuned to follow instructions or to refuse. Its output may be false, offensive or biased, may repeat
training text, and may name real people: have a human or a filter look before it reaches others."""

_USE = """\
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
inputs = tokenizer("한국어", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=32)[0]))
```"""
