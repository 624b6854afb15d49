"""Converts between training checkpoints and the directories of transformers.

    python -m polyglot_jax.convert --to=hf --checkpoint=WORKDIR[@STEP|@best] --output=DIR
    python -m polyglot_jax.convert --to=orbax --hf=DIR --output=DIR
    python -m polyglot_jax.convert --to=hf --hf=DIR --new_tokens=FILE --output=DIR

The weights' names and layouts are in `hf_weights`, the settings in `hf_config`, the third command's
longer vocabulary in `extend`. A model is never whole in memory (`array_slices`). An output appears
under its name only when it is whole.
"""

import ctypes
import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath

from polyglot_jax import (
    checkpoint,
    cli,
    extend,
    files,
    hf_config,
    hf_weights,
    provenance,
    selection,
)
from polyglot_jax.config import NeoxConfig, model_from_dict
from polyglot_jax.model_card import model_card
from polyglot_jax.tensor_files import DTYPES
from polyglot_jax.tokens import END_OF_TEXT


def main() -> None:
    values = flags.FLAGS
    changes = values.new_tokens or values.special_token or values.chat_template
    to_hf = bool(values.checkpoint) != bool(values.hf and changes)
    to_orbax = values.hf and not (values.checkpoint or changes)
    if not (to_hf if values.to == "hf" else to_orbax):
        raise ValueError(
            "give --to=hf --checkpoint=WORKDIR, or --to=orbax --hf=DIR, or --to=hf --hf=DIR with "
            "--new_tokens, --special_token or --chat_template"
        )
    files.check_new(values.output)  # before minutes of reading
    _give_memory_back()
    if values.to == "orbax":
        _to_orbax(values.hf, values.output, values.dtype)
    else:
        _to_hf(values)
    print(f"wrote {values.output}")


def _give_memory_back() -> None:
    """Has the C library return freed buffers of slices and chunks to the system at once.

    Left alone glibc keeps them, in an arena for each thread: the peak is a fifth higher, and by
    chance. The numbers are those of its malloc.h. Other C libraries have no such thing.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mmap_threshold, arena_max = -3, -8
        mallopt(mmap_threshold, 2**20)
        mallopt(arena_max, 1)


def _to_orbax(hf: str, output: str, dtype: str) -> None:
    model = read_hf_config(hf)
    tokenizer = epath.Path(hf) / "tokenizer.json"
    _check_fits(_read_tokenizer(tokenizer), model, tokenizer)
    params = hf_weights.open_weights(_local(hf), model, dtype)
    with files.new_directory(output) as directory:
        checkpoint.save_params(directory, model, params)
        tokenizer.copy(directory / "tokenizer.json")


def _to_hf(values: Any) -> None:
    template = _read_template(values.chat_template, values.hf)
    directory, step = split_step(values.checkpoint) if values.checkpoint else (values.hf, None)
    tokenizer = epath.Path(directory) / "tokenizer.json"
    if values.hf:
        model = read_hf_config(values.hf)
        _check_fits(_read_tokenizer(tokenizer), model, tokenizer)
    elif _is_workdir(directory):  # what is none, restore_params says better
        _read_tokenizer(tokenizer)
    extension = None
    if values.new_tokens or values.special_token:
        extension = extend.extend_tokenizer(
            tokenizer.read_bytes(),
            str(tokenizer),
            extend.read_words(values.new_tokens) if values.new_tokens else (),
            values.special_token,
            skip_unusable=(values.new_tokens or "").endswith(".json"),
        )
        print(extension.summary())
    if values.hf:
        params = hf_weights.open_weights(_local(values.hf), model)
        metadata = {"made_from": Path(values.hf).absolute().name, **provenance.code()}
    else:
        metadata, params = checkpoint.open_params(directory, step)
        model = model_from_dict(metadata["model"])
    save_hf(
        *(values.output, model, params, tokenizer, values.dtype, metadata),
        extension=extension,
        chat_template=template,
    )


def _read_template(flag: str | None, hf: str | None) -> str | None:
    """Returns the chat template of the flag, or else that of the directory, if it has one."""
    if flag:
        try:
            template = epath.Path(flag).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"--chat_template={flag}: not UTF-8 ({error.reason})") from None
        if "messages" not in template:
            raise ValueError(f"--chat_template={flag}: a Jinja template of `messages` is expected")
        return template
    if hf and (epath.Path(hf) / hf_config.CHAT_TEMPLATE).is_file():
        return (epath.Path(hf) / hf_config.CHAT_TEMPLATE).read_text(encoding="utf-8")
    if hf and (epath.Path(hf) / "tokenizer_config.json").is_file():  # where transformers 4 kept it
        template = _read_json(epath.Path(hf) / "tokenizer_config.json").get("chat_template")
        if not isinstance(template, str | None):
            raise ValueError(f"{hf} has several chat templates; give one by --chat_template")
        return template
    return None


def load_model(path: epath.PathLike) -> tuple[NeoxConfig, Any, epath.Path]:
    """Returns the model, its parameters (numpy) and the path of its tokenizer.json.

    Args:
      path: an HF directory, or WORKDIR[@STEP] of a training run or of --to=orbax.
    Raises:
      ValueError: it is neither, or it is not whole.
    """
    if (epath.Path(path) / "config.json").exists() and not _is_workdir(epath.Path(path)):
        model = read_hf_config(path)
        return model, load_hf(path, model), _find_tokenizer(epath.Path(path))
    workdir, step = split_step(path)
    if not _is_workdir(workdir):
        raise ValueError(
            f"{path} is neither a directory that transformers loads (with config.json) nor the "
            "--workdir of a training run (with checkpoints/)"
        )
    metadata, params = checkpoint.restore_params(workdir, step)
    return model_from_dict(metadata["model"]), params, _find_tokenizer(workdir)


def split_step(path: epath.PathLike) -> tuple[epath.Path, int | None]:
    """Splits WORKDIR[@NAME]: a step, "best" or a tag. None is the newest that is not damaged.

    A directory of that very name goes first.

    Raises:
      ValueError: the run has no such checkpoint.
    """
    workdir, _, name = os.fspath(path).rpartition("@")
    if workdir and re.fullmatch(r"\w+", name) and not epath.Path(path).exists():
        if name == selection.NEWEST:
            return epath.Path(workdir), None
        if name.isdecimal():  # what is missing, the reader says
            return epath.Path(workdir), int(name)
        return epath.Path(workdir), checkpoint.find_step(workdir, name)
    return epath.Path(path), None


def read_hf_config(directory: epath.PathLike) -> NeoxConfig:
    """Returns the model of an HF directory.

    Raises:
      ValueError: there is no config.json, or it names something this model cannot compute.
    """
    where = _local(directory) / "config.json"
    return hf_config.config_from_hf(_read_json(where), str(where))


def load_hf(directory: epath.PathLike, model: NeoxConfig, shardings: Any = None) -> Any:
    """Returns the float32 parameters of an HF directory.

    Args:
      model: what the parameters are for; must have the shape of the directory's config.json.
      shardings: a tree of shardings like the parameters: each is read straight into its place on
        the mesh, every process reading only its own slices. None gives numpy arrays.
    Raises:
      ValueError: the two differ (naming the field), or see `hf_weights.read_weights`.
    """
    hf_config.check_same(model, read_hf_config(directory), str(directory))
    return hf_weights.read_weights(_local(directory), model, shardings)


def save_hf(
    directory: epath.PathLike,
    model: NeoxConfig,
    params: Any,
    tokenizer: epath.PathLike,
    dtype: str,
    metadata: Mapping[str, Any],
    *,
    extension: extend.Extension | None = None,
    chat_template: str | None = None,
) -> None:
    """Writes a directory that transformers loads, and vLLM, which reads the same files.

    llama.cpp's converter refuses a tokenizer whose hash it does not know, as that of any new one.

    Args:
      params: a tree of arrays, see `hf_weights.write_weights`.
      tokenizer: path of a tokenizer.json.
      dtype: of the weights, "float32" or "bfloat16".
      metadata: of the checkpoint, for the model card.
      extension: more tokens, of that tokenizer and of the model.
      chat_template: Jinja, for `apply_chat_template`.
    Raises:
      ValueError: the directory exists or is not local, or the tokenizer does not fit the model.
      OSError: the directory cannot be written.
    """
    _check_fits(_read_tokenizer(epath.Path(tokenizer)), model, tokenizer)
    tokenizer_json = epath.Path(tokenizer).read_bytes()
    if extension is not None:
        tokenizer_json = extension.tokenizer_json
        rows = {
            name: jax.tree.map(lambda x: np.asarray(x[:]), params[name])
            for name in ("embed_in", "embed_out")
        }
        params = extend.extend_params({**params, **rows}, extension)
        vocab_size = extend.padded(extension.num_tokens, model.vocab_size)
        model = dataclasses.replace(model, vocab_size=vocab_size)
    ids = hf_config.token_ids(json.loads(tokenizer_json), str(tokenizer))
    end_of_text = ids[END_OF_TEXT]
    with files.new_directory(directory) as new:
        hf_weights.write_weights(new, model, params, dtype)
        for name, content in {
            "config.json": hf_config.config_to_hf(model, dtype, end_of_text),
            "generation_config.json": hf_config.generation_config(end_of_text),
            "tokenizer_config.json": hf_config.tokenizer_config(model.max_seq_len),
        }.items():
            (new / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (new / "tokenizer.json").write_bytes(tokenizer_json)
        if chat_template is not None:
            (new / hf_config.CHAT_TEMPLATE).write_text(chat_template, encoding="utf-8")
        card = model_card(Path(directory).name, model, dtype, ids, metadata, extension)
        (new / "README.md").write_text(card, encoding="utf-8")


def _is_workdir(path: epath.Path) -> bool:
    return (path / "checkpoints").is_dir()


def _local(directory: epath.PathLike) -> Path:
    if files.is_remote(directory):
        raise ValueError(
            f"{directory}: directories of transformers are read locally only, since safetensors "
            "maps their files; copy it"
        )
    return Path(directory)


def _read_json(path: epath.Path | Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"no {path.name} in {path.parent}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object but a {type(content).__name__}")
    return content


def _read_tokenizer(path: epath.Path) -> dict[str, int]:
    return hf_config.token_ids(_read_json(path), str(path))


def _check_fits(ids: Mapping[str, int], model: NeoxConfig, tokenizer: epath.PathLike) -> None:
    if max(ids.values()) >= model.vocab_size:
        raise ValueError(
            f"{tokenizer} has ids up to {max(ids.values())}, but the model only "
            f"{model.vocab_size} rows: is it the tokenizer of another model?"
        )


def _find_tokenizer(directory: epath.Path) -> epath.Path:
    if not (directory / "tokenizer.json").is_file():
        raise ValueError(f"no tokenizer.json in {directory}")
    return directory / "tokenizer.json"


if __name__ == "__main__":
    flags.DEFINE_enum("to", None, ["hf", "orbax"], "What to write.")
    flags.DEFINE_string("checkpoint", None, "With --to=hf: WORKDIR, or WORKDIR@STEP.")
    flags.DEFINE_string("hf", None, "A directory that transformers loads, to convert or extend.")
    flags.DEFINE_string("output", None, "Directory to make.")
    flags.DEFINE_enum("dtype", "float32", list(DTYPES), "Of the weights written.")
    flags.DEFINE_string(
        "new_tokens",
        None,
        "With --to=hf: words to add to the vocabulary, one a line; or a tokenizer.json whose "
        "tokens are added.",
    )
    flags.DEFINE_multi_string(
        "special_token",
        [],
        "With --to=hf: a special token to add, such as <|user|>. May be repeated.",
    )
    flags.DEFINE_string("chat_template", None, "With --to=hf: a Jinja file, written beside.")
    flags.mark_flags_as_required(["to", "output"])
    cli.run(main)
