"""Our GPT-NeoX, from an HF directory or a training run, on one device or a mesh."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from eval import score
from eval.models import digest
from eval.models.tokenizer import PlainTokenizer, check_prompts
from eval.request import Answer, Request
from polyglot_jax import checkpoint, convert, generate
from polyglot_jax.config import MeshConfig, NeoxConfig, model_from_dict
from polyglot_jax.mesh import make_mesh
from polyglot_jax.models.neox import Params
from polyglot_jax.sampling import Sampling
from polyglot_jax.step import abstract_params, shardings_of
from polyglot_jax.vocabulary import TextStream, Vocabulary, load_vocabulary

GENERATE_ROWS = 16  # prompts at a time, for each row group of the mesh


@dataclasses.dataclass(frozen=True)
class JaxNeox:
    """A `Model`. See `load`."""

    name: str
    content_hash: str
    config: NeoxConfig
    params: Params
    vocabulary: Vocabulary
    mesh: Mesh
    sizes: score.Sizes

    @property
    def engine(self) -> str:
        return f"jax-{score.VERSION} {self.config.compute_dtype}"

    @property
    def max_length(self) -> int:
        return self.config.max_seq_len

    @property
    def end_of_text(self) -> int:
        return self.vocabulary.end_of_text

    @property
    def tokenizer(self) -> PlainTokenizer:
        return PlainTokenizer(self.vocabulary.tokenizer)

    def score(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """See `eval.request.Model`."""
        return score.score(self.config, self.params, requests, self.mesh, self.sizes)

    def generate(
        self, prompts: Sequence[tuple[int, ...]], *, max_new_tokens: int, stop: Sequence[str]
    ) -> Iterator[tuple[int, str]]:
        """See `eval.request.Model`."""
        room = self.max_length - max_new_tokens
        check_prompts(prompts, room, max_new_tokens)
        rows = GENERATE_ROWS * self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        by_length = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        for start in range(0, len(prompts), rows):
            numbers = by_length[start : start + rows]
            batch = [prompts[i][-room:] for i in numbers]
            batch += [batch[-1]] * (rows - len(batch))  # one shape
            texts = self._decode(batch, len(numbers), max_new_tokens, stop)
            yield from zip(numbers, texts, strict=True)

    def _decode(
        self, batch: list[tuple[int, ...]], num: int, max_new_tokens: int, stop: Sequence[str]
    ) -> list[str]:
        """Returns the continuations of the first `num` rows."""
        streams = [TextStream(self.vocabulary, stop) for _ in range(num)]
        texts = [""] * num
        with jax.set_mesh(self.mesh):
            steps = generate.decode(
                self.config,
                self.params,
                batch,
                max_new_tokens=max_new_tokens,
                num_tokens=len(self.vocabulary.token_bytes),
                sampling=Sampling(temperature=0),
                seed=0,
            )
            for step, tokens_B in enumerate(steps, 1):
                for i, stream in enumerate(streams):
                    texts[i] += stream.push(int(tokens_B[i]), last=step == max_new_tokens)
                if all(stream.done for stream in streams):
                    break
        return texts


def load(path: epath.PathLike, *, dtype: str | None, mesh: MeshConfig | None) -> JaxNeox:
    """Returns the model of an HF directory or of WORKDIR[@STEP|@best]. See `eval.models.load`.

    Raises:
      ValueError: see `polyglot_jax.convert.load_model`; the model does not fit the mesh.
    """
    devices = jax.devices() if mesh is not None else jax.devices()[:1]
    placed = make_mesh(mesh or MeshConfig(data=1), devices)
    on_cpu = devices[0].platform == "cpu"
    config, params, tokenizer, content_hash = _read(path, placed)
    config = dataclasses.replace(
        config,
        compute_dtype=dtype or ("float32" if on_cpu else config.compute_dtype),
        remat="none",
        attention="xla",
    )
    vocabulary = load_vocabulary(tokenizer)
    if (
        len(vocabulary.token_bytes) > config.vocab_size
    ):  # JAX would take the last row for the others
        raise ValueError(
            f"{tokenizer} has {len(vocabulary.token_bytes)} tokens, but the model only "
            f"{config.vocab_size} rows: is it the tokenizer of another model?"
        )
    return JaxNeox(
        name=Path(os.fspath(path)).name,
        content_hash=content_hash,
        config=config,
        params=_cast(config, params),
        vocabulary=vocabulary,
        mesh=placed,
        sizes=score.CPU if on_cpu else score.ACCELERATOR,
    )


def _read(path: epath.PathLike, mesh: Mesh) -> tuple[NeoxConfig, Params, epath.Path, str]:
    """Like `convert.load_model`, but straight onto the mesh, and with the digest."""
    directory, step = convert.split_step(path)
    if not (directory / "checkpoints").is_dir():
        config = convert.read_hf_config(directory)
        params = convert.load_hf(directory, config, shardings_of(abstract_params(config, mesh)))
        return config, params, directory / "tokenizer.json", digest.of_hf(Path(directory))
    name = () if step is None else (str(step),)
    step = checkpoint.find_step(directory, *name)
    config = model_from_dict(checkpoint.read_metadata(directory, step)["model"])
    shardings = shardings_of(abstract_params(config, mesh))
    _, params = checkpoint.restore_params(directory, step, shardings)
    content_hash = digest.of_checkpoint(directory, step)
    return config, params, directory / "tokenizer.json", content_hash


def _cast(config: NeoxConfig, params: Params) -> Params:
    """Does what `generate.inference_params` does, and frees each original at once: the two trees of
    a large model do not fit one device."""

    def cast(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path)
        new = generate.inference_params(config, {name: x})[name]
        if new.dtype != x.dtype:
            x.delete()
        return new

    return jax.tree_util.tree_map_with_path(cast, params)
