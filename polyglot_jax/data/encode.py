"""Documents -> token shards: every document tokenised once, all of them shuffled globally.

The work is cut into tasks that can be repeated (`polyglot_jax.data.spill`): one per input file,
then one per shard. A rerun does what is not done yet; any interrupted run ends in the same bytes as
an uninterrupted one, on any number of processes.

    python -m polyglot_jax.data.encode --input=DIR --tokenizer=tokenizer.json --output=DIR
"""

import hashlib
import json
import math
import os
from typing import Any

from absl import flags
from etils import epath

from polyglot_jax import cli, files, pool
from polyglot_jax.corpus import readers
from polyglot_jax.data import documents, spill
from polyglot_jax.data.manifest import (
    SPLITS,
    Manifest,
    Shard,
    dtype_for,
    write_manifest,
)
from polyglot_jax.data.shards import open_split, read_token_bytes, write_token_bytes
from polyglot_jax.tokens import END_OF_TEXT


def encode(
    input_path: str,
    tokenizer: str,
    output: str,
    *,
    source: str,
    held_out_fraction: float = 0.01,
    seed: int = 1234,
    processes: int = 1,
    shard_tokens: int = 2**26,
) -> None:
    """Writes the source directory `output` (docs/shards.md) from documents.

    Args:
      input_path: directory, file or glob of documents, as `polyglot_jax.corpus.readers` takes it.
      tokenizer: a byte-level `tokenizer.json` with `<|endoftext|>`.
      output: directory to write; what an interrupted run left there is taken up again.
      source: name of the source in mixtures and reports.
      held_out_fraction: share of the texts, chosen by their hash, that goes to `held_out/`.
      seed: of the order of the documents.
      processes: tasks at a time. The result does not depend on it.
      shard_tokens: tokens of a shard, about.

    Raises:
      ValueError: unreadable documents, an unfit tokenizer, an output begun with other settings
        or finished and damaged since, or a split that would be empty.
      OSError: files cannot be read or written, or a worker process was killed.
    """
    _check(0 < held_out_fraction < 1, f"held_out_fraction={held_out_fraction}: between 0 and 1")
    _check(processes > 0, f"processes={processes}: must be above 0")
    _check(shard_tokens > 0, f"shard_tokens={shard_tokens}: must be above 0")
    _check(0 <= seed < 2**64, f"seed={seed}: must fit 64 bits")
    _check(bool(source), "source: must not be empty")
    inputs = readers.find_files(input_path)
    tokenizer_json = epath.Path(tokenizer).read_bytes()
    fit = documents.tokenizer_for_documents(tokenizer_json, tokenizer)
    separator = fit.get_vocab()[END_OF_TEXT]
    token_bytes = documents.token_bytes(tokenizer_json, tokenizer)
    documents.check_lossless(tokenizer_json, tokenizer)
    tokenizer_sha256 = hashlib.sha256(tokenizer_json).hexdigest()
    settings: dict[str, Any] = {
        "tokenizer_sha256": tokenizer_sha256,
        "source": source,
        "held_out_fraction": held_out_fraction,
        "seed": seed,
        "shard_tokens": shard_tokens,
        "files": [file.name for file in inputs],
    }
    root = epath.Path(output)
    record, work = root / "encode.json", root / "_work"
    _guard(root, record, settings | {"inputs": [spill.version(file) for file in inputs]})
    if record.exists() and all((root / split / "manifest.json").exists() for split in SPLITS):
        for split in SPLITS:
            open_split(root / split)
        read_token_bytes(root, token_bytes.size)
        _remove(work)
        print(f"{root} is complete: nothing to do")
        return

    job = spill.Job(
        files=tuple(map(str, inputs)),
        tokenizer=tokenizer,
        output=output,
        seed=seed,
        held_out_fraction=held_out_fraction,
        dtype=dtype_for(token_bytes.size),
    )
    root.mkdir(parents=True, exist_ok=True)
    if not record.exists():
        _write_record(record, settings)  # first: a _work without it is not ours to delete
    work.mkdir(exist_ok=True)
    with pool.workers(processes, tasks=len(inputs)) as run:
        run("tokenising", spill.spill_file, [(job, i) for i in range(len(inputs))])
        counts = [json.loads(job.file_ok(i).read_text()) for i in range(len(inputs))]
        tokens = {split: sum(count[split] for count in counts) for split in SPLITS}
        if not all(tokens.values()):
            _remove(work)
            record.unlink()
            raise ValueError(_empty_split(input_path, held_out_fraction, counts))
        lost = {key: sum(count[key] for count in counts) for key in ("empty", "lossy")}
        # From here on the inputs must stay as they are: shards mix the runs of all of them.
        _write_record(record, settings | {"inputs": [c["input"] for c in counts]} | lost)
        num_shards = {s: min(spill.CELLS, math.ceil(n / shard_tokens)) for s, n in tokens.items()}
        tasks = [(job, split, i, n) for split, n in num_shards.items() for i in range(n)]
        run("writing shards", spill.merge_shard, tasks)

    files.write(root / "tokenizer.json", tokenizer_json)
    write_token_bytes(root, token_bytes)
    print(f"{lost['empty']:,} empty documents passed over")
    if lost["lossy"]:
        print(f"{lost['lossy']:,} documents lost some of their text to the tokenizer")
    # Training opens train: with its manifest last, no run starts on a source half done.
    for split, n in reversed(num_shards.items()):
        entries = [json.loads(job.shard_ok(split, i).read_text()) for i in range(n)]
        manifest = Manifest(
            source=source,
            split=split,
            tokenizer_sha256=tokenizer_sha256,
            vocab_size=token_bytes.size,
            separator_id=separator,
            dtype=job.dtype,
            seed=seed,
            held_out_fraction=held_out_fraction,
            shards=tuple(Shard(**entry) for entry in entries if entry is not None),
        )
        write_manifest(root / split, manifest)
        print(
            f"{root / split}: {manifest.documents:,} documents, {manifest.tokens:,} tokens, "
            f"{manifest.bytes:,} bytes of text, {len(manifest.shards):,} shards"
        )
    _remove(work)


def _write_record(record: epath.Path, values: dict[str, Any]) -> None:
    files.write(record, json.dumps(values, indent=1, ensure_ascii=False))


def _remove(folder: epath.Path) -> None:
    if folder.exists():
        folder.rmtree()


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _guard(root: epath.Path, record: epath.Path, settings: dict[str, Any]) -> None:
    """Raises ValueError unless `root` is new or was begun with the same settings."""
    if not record.exists():
        for name in (*SPLITS, "_work"):
            _check(
                not (root / name).exists(),
                f"{root} holds {name} but no encode.json that says how it was made: "
                "choose another --output",
            )
        return
    try:
        saved = json.loads(record.read_bytes())
    except ValueError:
        saved = {}
    saved.setdefault("inputs", settings["inputs"])  # a file may change until shards are written
    changed = [key for key, value in settings.items() if saved.get(key) != value]
    _check(
        not changed,
        f"{root} was begun with other settings ({', '.join(changed)} changed): "
        "delete it or choose another --output",
    )


def _empty_split(input_path: str, fraction: float, counts: list[dict[str, Any]]) -> str:
    """Returns the error line for a split without documents, with a fraction that would work."""
    lowest = min(count["lowest"] for count in counts)
    highest = max(count["highest"] for count in counts)
    if lowest >= highest:
        return f"{input_path}: two different documents are needed, one of them to be held out"
    digits = 2
    while (better := (math.floor(lowest * 10**digits) + 1) / 10**digits) > highest:
        digits += 1
    return (
        f"{input_path}: --held_out_fraction={fraction} leaves no document in "
        f"{'held_out' if lowest >= fraction else 'train'}; use --held_out_fraction={better}"
    )


def main() -> None:
    values = flags.FLAGS
    encode(
        values.input,
        values.tokenizer,
        values.output,
        source=values.source or epath.Path(values.output).name,
        held_out_fraction=values.held_out_fraction,
        seed=values.seed,
        processes=values.processes,
        shard_tokens=values.shard_tokens,
    )


if __name__ == "__main__":
    flags.DEFINE_string("input", None, "Directory, file or glob of documents.")
    flags.DEFINE_string("tokenizer", None, "Byte-level tokenizer.json with <|endoftext|>.")
    flags.DEFINE_string("output", None, "Directory for the token shards of this source.")
    flags.DEFINE_string("source", None, "Name of the source; default: the name of --output.")
    flags.DEFINE_float("held_out_fraction", 0.01, "Share of the texts kept out of training.")
    flags.DEFINE_integer("seed", 1234, "Seed of the order of the documents.")
    flags.DEFINE_integer("processes", os.cpu_count(), "Worker processes.")
    flags.DEFINE_integer("shard_tokens", 2**26, "Tokens of a shard, about.")
    flags.mark_flags_as_required(["input", "tokenizer", "output"])
    cli.run(main)
