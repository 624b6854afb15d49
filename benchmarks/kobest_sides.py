"""The two sides of `benchmarks.kobest`, each in a process of its own: ours, and lm-eval's HFLM."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import child, record
from benchmarks.child import Row
from eval.request import Request


def read_requests(path: str) -> list[Request]:
    """Reads what `benchmarks.kobest` wrote: [context, choices] of each item, all ids."""
    return [
        Request(tuple(context), tuple(map(tuple, choices)))
        for context, choices in json.loads(Path(path).read_text(encoding="utf-8"))
    ]


def _row(seconds: float, log_probs: Sequence[Sequence[float]]) -> Row:
    return {"seconds": seconds, "peak_bytes": child.peak_bytes(), "log_probs": log_probs}


def ours(model: str, requests: str, **unused: int) -> Iterator[Row]:
    """Yields the seconds and the log-probabilities of all requests, again and again."""
    from eval import models

    loaded = models.load(model, backend="jax")
    items = read_requests(requests)
    while True:
        start = time.perf_counter()
        answers = dict(loaded.score(items))
        seconds = time.perf_counter() - start
        yield _row(seconds, [answers[i].log_probs for i in range(len(items))])


def lm_eval(model: str, requests: str, batch_size: int) -> Iterator[Row]:
    """The same of lm-eval's transformers backend, from the token ids on, as ours."""
    import torch
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(record.cores())
    on_gpu = torch.cuda.is_available()
    loaded = HFLM(
        pretrained=model,
        device="cuda" if on_gpu else "cpu",
        dtype="bfloat16" if on_gpu else "float32",
        batch_size=batch_size,
    )
    items = read_requests(requests)
    # The first pair is the key of a cache, which is off.
    asked = [
        (("", ""), list(item.context), list(choice)) for item in items for choice in item.choices
    ]
    while True:
        start = time.perf_counter()
        answers = iter(loaded._loglikelihood_tokens(asked, disable_tqdm=True))
        seconds = time.perf_counter() - start
        yield _row(seconds, [[next(answers)[0] for _ in item.choices] for item in items])
