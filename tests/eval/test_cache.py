"""What is finished stays finished; what is torn, foreign or asked twice does no harm."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from eval.cache import Cache, generate_all, score_all
from eval.request import Answer, Request


@dataclass
class Counting:
    """A model that scores by sums and remembers what it was asked."""

    content_hash: str = "abc"
    engine: str = "test"
    stop_after: int | None = None
    asked: list = field(default_factory=list)

    def score(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        for n, i in enumerate(reversed(range(len(requests)))):
            if n == self.stop_after:
                raise KeyboardInterrupt
            r = requests[i]
            self.asked.append(r)
            yield (
                i,
                Answer(
                    tuple(-sum(c) / 3 for c in r.choices),
                    (True,) * len(r.choices),
                    (1,) * len(r.choices),
                ),
            )

    def generate(self, prompts, *, max_new_tokens, stop) -> Iterator[tuple[int, str]]:
        for i, prompt in enumerate(prompts):
            self.asked.append(prompt)
            yield i, f"답 {prompt} {max_new_tokens} {stop}"


REQUESTS = [Request((1, 2), ((i,), (i, 5))) for i in range(6)]


def test_a_killed_evaluation_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "deep" / "requests.jsonl"
    with pytest.raises(KeyboardInterrupt):
        score_all(Counting(stop_after=4), REQUESTS, Cache(path), "copa")
    model = Counting()
    answers = score_all(model, REQUESTS, Cache(path), "copa")
    assert answers == score_all(Counting(), REQUESTS, Cache(), "copa")
    assert model.asked == [REQUESTS[1], REQUESTS[0]]
    assert "copa: 6 of 6" in capsys.readouterr().err
    score_all(model, REQUESTS, Cache(path), "copa")
    assert len(model.asked) == 2


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    answers = score_all(Counting(), REQUESTS, Cache(path), "copa")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    model = Counting()
    assert score_all(model, REQUESTS, Cache(path), "copa") == answers
    assert len(model.asked) == 1
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damaged",
    ['{"text": "no key"}', '{"key": "2"}', '{"key": "2", "logprobs": [-1.0]}', '["key"]', "{"],
)
def test_a_damaged_line_is_named(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(f'{{"key": "1", "text": "a"}}\n{damaged}\n')
    with pytest.raises(ValueError, match=r"requests\.jsonl, line 2: not a finished request"):
        Cache(path)


def test_models_and_engines_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    for changed in ({}, {"content_hash": "def"}, {"engine": "jax-2"}):
        model = Counting(**changed)
        score_all(model, REQUESTS, Cache(path), "copa")
        assert len(model.asked) == 6


def test_equal_requests_are_computed_once() -> None:
    model = Counting()
    answers = score_all(model, [*REQUESTS[:2], *REQUESTS[:2]], Cache(), "copa")
    assert answers[:2] == answers[2:]
    assert len(model.asked) == 2


def test_generated_text_is_kept_with_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    model = Counting()
    for _ in range(2):
        texts = generate_all(
            model, [(1,), (2,)], Cache(path), "nsmc", max_new_tokens=4, stop=["\n"]
        )
    assert texts == ["답 (1,) 4 ['\\n']", "답 (2,) 4 ['\\n']"]
    assert len(model.asked) == 2
    generate_all(model, [(1,), (2,)], Cache(path), "nsmc", max_new_tokens=5)
    assert len(model.asked) == 4
    assert "답" in path.read_text(encoding="utf-8")


def test_lines_are_as_documented(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    score_all(Counting(), REQUESTS[:1], Cache(path), "copa")
    entry = json.loads(path.read_text())
    assert list(entry) == ["key", "log_probs", "greedy", "context_kept"]
    assert entry["log_probs"] == [0.0, -5 / 3]


def test_a_score_that_is_no_number_is_refused_and_not_kept(tmp_path: Path) -> None:
    class Broken(Counting):
        def score(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
            yield 0, Answer((-1.0, float("nan")), (False, False), (2, 2))

    path = tmp_path / "requests.jsonl"
    with pytest.raises(ValueError, match="copa: the model's log-probabilities are NaN"):
        score_all(Broken(), REQUESTS, Cache(path), "copa")
    assert path.read_bytes() == b""
