"""A model whose scores are digests of the ids, and a folder of KoBEST's shape: no weights."""

import hashlib
from pathlib import Path

from eval.models.tokenizer import PlainTokenizer
from eval.request import Answer
from tests.tiny_tokenizer import train_tokenizer


class FakeModel:
    """Answers as `eval.request.Model` asks; counts what it was asked."""

    name, content_hash, engine, max_length, end_of_text = "fake", "0" * 16, "fake-1", 2048, 2

    def __init__(self, stop_after=None):
        self.tokenizer = PlainTokenizer(train_tokenizer())
        self.asked = 0
        self.stop_after = stop_after

    def score(self, requests):
        for i, request in enumerate(requests):
            if self.asked == self.stop_after:
                raise KeyboardInterrupt
            self.asked += 1
            ends = [request.context + choice for choice in request.choices]
            yield (
                i,
                Answer(
                    log_probs=tuple(-_number(ids) for ids in ends),
                    greedy=(False,) * len(ends),
                    context_kept=tuple(
                        min(len(request.context), self.max_length + 1 - len(choice))
                        for choice in request.choices
                    ),
                ),
            )

    def generate(self, prompts, *, max_new_tokens, stop):
        for i, prompt in enumerate(prompts):
            self.asked += 1
            yield i, f" {int(_number(prompt))}"


def _number(ids):
    return hashlib.sha256(str(ids).encode()).digest()[0] / 8


def write_copa(folder: Path, questions=12) -> Path:
    """Writes COPA's train and test files as KoBEST's release has them; returns the folder."""
    (folder / "COPA").mkdir(parents=True)
    header = "ID\tsentence\tquestion\t1\t2\tAnswer"
    for split in ("train", "test"):
        rows = [
            f"{i}\t{split}에서 호랑이 {i}마리가 떡을 먹었다.\t{'원인' if i % 2 else '결과'}\t"
            f"배가 고팠다.\t배가 불렀다 {i}.\t{i % 2 + 1}"
            for i in range(questions)
        ]
        text = "\r\n".join([header, *rows])
        (folder / "COPA" / f"{split}.tsv").write_text(text, encoding="utf-8", newline="")
    return folder
