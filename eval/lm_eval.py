"""Runs the tasks of lm-evaluation-harness (KMMLU, CLIcK, ...) on any model of ours.

    python -m eval.lm_eval --model=DIR --tasks=kmmlu,click --num_fewshot=5 --output=DIR

or, from Python:

    from eval.lm_eval import LmEval
    from eval.models import load
    lm_eval.simple_evaluate(LmEval(load("DIR")), tasks=["click"])

lm-eval's command line takes no models from outside, hence this launcher. Encoding, rolling windows
and metrics stay lm-eval's own; only the numbers come from our engine.
"""

import difflib
import json
import os
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from absl import flags

from eval.cache import Cache, generate_all, score_all
from eval.models import load
from eval.request import Model, Request
from polyglot_jax import cli, files

try:
    from lm_eval import evaluator, utils
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
    from lm_eval.tasks import TaskManager
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "lm_eval":
        raise
    MISSING = "this needs lm-evaluation-harness: pip install 'lm_eval>=0.4.13'"
    if __name__ == "__main__":
        sys.exit(f"error: {MISSING}")
    raise ModuleNotFoundError(MISSING, name="lm_eval") from error


def main() -> None:
    values = flags.FLAGS
    output = Path(values.output)
    manager = TaskManager(include_path=values.include_path)
    check_known(values.tasks, manager)
    # lm-eval's bootstrap forks, and a fork of a process in which JAX runs may hang for ever.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    results = evaluator.simple_evaluate(
        model=LmEval(load(values.model), Cache(output / "requests.jsonl")),
        tasks=values.tasks,
        num_fewshot=values.num_fewshot,
        limit=values.limit,
        task_manager=manager,
    )
    print(utils.make_table(results))
    if results.get("groups"):
        print(utils.make_table(results, "groups"))
    text = json.dumps(results, indent=1, ensure_ascii=False, default=str)
    print(f"wrote {files.write(output / 'lm_eval.json', text)}")


def check_known(names: Sequence[str], manager: Any) -> None:
    """Raises ValueError, with the closest names, for a task that lm-eval does not have."""
    for name in names:
        if not manager.match_tasks([name]):
            close = difflib.get_close_matches(name, manager.all_tasks, n=3)
            hint = f"; close to it: {', '.join(close)}" if close else ""
            raise ValueError(f"lm-eval has no task {name!r}{hint} (--include_path adds a folder)")


class LmEval(TemplateLM):
    """A `Model` behind lm-eval's interface, which accepts nothing but a subclass of its own.

    It differs from lm-eval's hf backend in rarities. Special tokens are not read from text, as
    nowhere in this project: a literal `<|endoftext|>` in a document is characters, not the token.
    A generated special token that does not end the text shows as its name, where hf drops it; ids
    that no token has are not generated; a character that is cut off is left out.
    """

    def __init__(self, model: Model, cache: Cache | None = None):
        super().__init__()
        self.model = model
        self.cache = cache or Cache()

    @property
    def eot_token_id(self) -> int:
        return self.model.end_of_text

    @property
    def max_length(self) -> int:
        return self.model.max_length

    @property
    def tokenizer_name(self) -> str:
        return self.model.content_hash

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        return self.model.tokenizer.encode(string)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Neighbours with one context, as the choices of one question are, become one request."""
        for pair, context, continuation in requests:
            if not context or not continuation:
                raise ValueError(
                    f"an empty context or continuation cannot be scored: {pair!r:.200}"
                )
        merged = [
            Request(context, tuple(tuple(continuation) for _, _, continuation in group))
            for context, group in groupby(requests, key=lambda request: tuple(request[1]))
        ]
        answers = score_all(self.model, merged, self.cache, "log-likelihoods")
        results = [
            pair for answer in answers for pair in zip(answer.log_probs, answer.greedy, strict=True)
        ]
        for (pair, _, _), result in zip(requests, results, strict=True):
            if pair is not None:
                self.cache_hook.add_partial("loglikelihood", pair, result)
        return results

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        windows = [
            (index, *utils.make_disjoint_window(window))
            for index, request in enumerate(requests)
            for window in utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
        ]
        scored = self._loglikelihood_tokens([(None, *window[1:]) for window in windows])
        totals = [0.0] * len(requests)
        for (index, _, _), (log_prob, _) in zip(windows, scored, strict=True):
            totals[index] += log_prob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy only. A prompt that leaves too little room loses its left end, as in lm-eval.

        Raises:
          ValueError: a task asks for sampling, or for as many new tokens as the model is long.
        """
        end = self.model.tokenizer.decode([self.eot_token_id])
        by_settings: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for index, request in enumerate(requests):
            settings = normalize_gen_kwargs(request.args[1], default_max_gen_toks=256)
            if settings.get("do_sample"):
                raise ValueError(
                    f"task {request.task_name} asks for sampling, which this adapter does not do: "
                    "set do_sample: false in the task's generation_kwargs"
                )
            room = self.max_length - settings["max_gen_toks"]
            if room <= 0:
                raise ValueError(
                    f"task {request.task_name} asks for {settings['max_gen_toks']} new tokens; "
                    f"the model has {self.max_length} positions for prompt and answer together"
                )
            stop = tuple(handle_stop_sequences(settings["until"], eos=end))
            by_settings.setdefault((settings["max_gen_toks"], stop), []).append(index)
        texts = [""] * len(requests)
        for (max_new_tokens, stop), indices in by_settings.items():
            room = self.max_length - max_new_tokens
            prompts = [tuple(self.tok_encode(requests[i].args[0])[-room:]) for i in indices]
            made = generate_all(
                self.model,
                prompts,
                self.cache,
                "generation",
                max_new_tokens=max_new_tokens,
                stop=stop,
            )
            for index, text in zip(indices, made, strict=True):
                texts[index] = text
                self.cache_hook.add_partial("generate_until", requests[index].args, text)
        return texts


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "HF directory, or WORKDIR[@STEP] of a training run.")
    flags.DEFINE_list("tasks", None, "Names of lm-eval's tasks or groups, or with --include_path.")
    flags.DEFINE_integer("num_fewshot", None, "Shots; the task's own number if absent.")
    flags.DEFINE_float("limit", None, "At most so many documents a task, for a trial.")
    flags.DEFINE_string("include_path", None, "Folder of further task YAML files.")
    flags.DEFINE_string(
        "output", None, "Folder for lm_eval.json (results, all samples) and finished requests."
    )
    flags.mark_flags_as_required(["model", "tasks", "output"])
    cli.run(main)
