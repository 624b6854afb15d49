"""Any causal language model of transformers, run by torch: the baselines under the same prompts.

Weights are read from safetensors only and no code that comes with a model is run. Since such a
model promises nothing about other masks than padding, each choice is a sequence of its own; equal
sequences, as of choices of one token, are computed once.
"""

import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from etils import epath

from eval.models import digest
from eval.models.tokenizer import PlainTokenizer, check_prompts
from eval.pack import check
from eval.request import Answer, Request

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}  # of a batch, padding counted
GENERATE_ROWS = 16
VERSION = 1  # of everything here that can change a score: part of every cache key


@dataclass(frozen=True)
class TorchModel:
    """A `Model`. See `load`."""

    name: str
    content_hash: str
    max_length: int
    end_of_text: int
    tokenizer: PlainTokenizer
    model: Any
    ends: frozenset[int]  # tokens that end a text that is generated
    pad: int

    @property
    def engine(self) -> str:
        return f"torch-{VERSION} {str(self.model.dtype).removeprefix('torch.')}"

    def score(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """See `eval.request.Model`."""
        check(requests, self.max_length)
        owners: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
        for number, request in enumerate(requests):
            for i, choice in enumerate(request.choices):
                kept = request.kept(i, self.max_length)
                owners[request.context[-kept:] + choice[:-1]].append((number, i))
        left = [len(request.choices) for request in requests]
        done: dict[int, dict[int, tuple[float, bool]]] = defaultdict(dict)
        yield from ((i, Answer((), (), ())) for i, num in enumerate(left) if num == 0)
        for batch in _batches(owners, BATCH_TOKENS[self.model.device.type]):
            wanted = [[requests[n].choices[i] for n, i in owners[ids]] for ids in batch]
            for ids, values in zip(batch, self._score_batch(batch, wanted), strict=True):
                for (number, i), value in zip(owners[ids], values, strict=True):
                    done[number][i] = value
                    if len(done[number]) == left[number]:
                        found = done.pop(number)
                        yield number, self._answer(requests[number], found)

    def _answer(self, request: Request, found: dict[int, tuple[float, bool]]) -> Answer:
        in_order = [found[i] for i in range(len(request.choices))]
        return Answer(
            log_probs=tuple(log_prob for log_prob, _ in in_order),
            greedy=tuple(is_best for _, is_best in in_order),
            context_kept=tuple(request.kept(i, self.max_length) for i in range(len(in_order))),
        )

    @torch.inference_mode()
    def _score_batch(
        self, batch: list[tuple[int, ...]], wanted: list[list[tuple[int, ...]]]
    ) -> list[list[tuple[float, bool]]]:
        """Returns, for each sequence of inputs, the value of each choice that ends there."""
        T = max(map(len, batch))
        ids_BT = torch.full((len(batch), T), self.pad)
        mask_BT = torch.zeros((len(batch), T), dtype=torch.long)
        for row, ids in enumerate(batch):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = 1
        first = [len(ids) - max(map(len, ends)) for ids, ends in zip(batch, wanted, strict=True)]
        begin = min(first)  # no column before it is scored
        few = {}
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            few = {"logits_to_keep": T - begin}
        device = self.model.device
        logits_BTV = self.model(
            input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device), use_cache=False, **few
        ).logits
        skipped = T - logits_BTV.shape[1]
        values = []
        for row, (ids, ends) in enumerate(zip(batch, wanted, strict=True)):
            scored = logits_BTV[row, first[row] - skipped : len(ids) - skipped].float()
            log_probs_CV = torch.log_softmax(scored, dim=-1)
            best_C = log_probs_CV.argmax(dim=-1)
            values.append([_value(log_probs_CV, best_C, choice) for choice in ends])
        return values

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[tuple[int, ...]], *, max_new_tokens: int, stop: Sequence[str]
    ) -> Iterator[tuple[int, str]]:
        """See `eval.request.Model`."""
        room = self.max_length - max_new_tokens
        check_prompts(prompts, room, max_new_tokens)
        by_length = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        for start in range(0, len(prompts), GENERATE_ROWS):
            numbers = by_length[start : start + GENERATE_ROWS]
            batch = [prompts[i][-room:] for i in numbers]
            P = max(map(len, batch))
            ids_BP = torch.tensor([[self.pad] * (P - len(ids)) + list(ids) for ids in batch])
            mask_BP = torch.tensor([[0] * (P - len(ids)) + [1] * len(ids) for ids in batch])
            drawn_BN = self.model.generate(
                input_ids=ids_BP.to(self.model.device),
                attention_mask=mask_BP.to(self.model.device),
                generation_config=transformers.GenerationConfig(
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    eos_token_id=sorted(self.ends),
                    pad_token_id=self.pad,
                ),
                stopping_criteria=[lambda ids, _: self._are_done(ids[:, P:], stop)],  # noqa: B023
            )[:, P:]
            for number, drawn in zip(numbers, drawn_BN.tolist(), strict=True):
                yield number, self._text(drawn, stop)[0]

    def _are_done(self, drawn_BN: torch.Tensor, stop: Sequence[str]) -> torch.Tensor:
        done = [self._text(drawn, stop)[1] for drawn in drawn_BN.tolist()]
        return torch.tensor(done, device=drawn_BN.device)

    def _text(self, drawn: list[int], stop: Sequence[str]) -> tuple[str, bool]:
        """Returns the text up to what ends it, and whether anything does."""
        end = next((n for n, i in enumerate(drawn) if i in self.ends), len(drawn))
        # Bytes that do not make a character yet show as U+FFFD.
        text = self.tokenizer.decode(drawn[:end]).rstrip("\ufffd")
        cut = min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))
        return text[:cut], end < len(drawn) or cut < len(text)


def _value(
    log_probs_CV: torch.Tensor, best_C: torch.Tensor, choice: tuple[int, ...]
) -> tuple[float, bool]:
    targets = torch.tensor(choice, device=log_probs_CV.device)
    chosen = log_probs_CV[-len(choice) :].gather(1, targets[:, None])
    return float(chosen.double().sum()), bool((best_C[-len(choice) :] == targets).all())


def _batches(
    sequences: dict[tuple[int, ...], Any], batch_tokens: int
) -> Iterator[list[tuple[int, ...]]]:
    """Yields sequences of similar length, the longest first."""
    batch: list[tuple[int, ...]] = []
    for ids in sorted(sequences, key=len, reverse=True):
        if batch and len(batch[0]) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch


def load(path: epath.PathLike, *, dtype: str | None) -> TorchModel:
    """Returns the model of an HF directory, on the first GPU where there is one.

    Raises:
      ValueError: there is no such model, or it has no safetensors or no fast tokenizer.
    """
    directory = Path(path)
    if not (directory / "config.json").is_file():
        raise ValueError(f"{path}: no directory that transformers loads (with config.json)")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stored = "float32" if device == "cpu" else "auto"
    try:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=getattr(torch, dtype) if dtype else stored,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        read = transformers.AutoTokenizer.from_pretrained(
            directory, use_fast=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"{path}: transformers cannot load it: {error}") from error
    if not getattr(read, "is_fast", False):
        raise ValueError(f"{path}: has no fast tokenizer (tokenizer.json)")
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or ())
    ends += [read.eos_token_id] if read.eos_token_id is not None else []
    begin = read.bos_token_id if read.bos_token_id is not None else read.eos_token_id
    if begin is None:
        raise ValueError(f"{path}: its tokenizer names neither bos_token nor eos_token")
    return TorchModel(
        name=directory.name,
        content_hash=digest.of_hf(directory),
        max_length=_max_length(model.config),
        end_of_text=begin,
        tokenizer=PlainTokenizer(tokenizers.Tokenizer.from_str(read.backend_tokenizer.to_str())),
        model=model.to(device).eval(),
        ends=frozenset(ends),
        pad=ends[0] if ends else begin,
    )


def _max_length(config: Any) -> int:
    """Returns the positions of a model under whatever name its family has for them."""
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if isinstance(value := getattr(config, name, None), int):
            return value
    return 2048  # no limit of its own, as with relative positions
