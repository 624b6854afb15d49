"""lm-eval's own hf backend and our engine under lm-eval's tasks: the same numbers, by request."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from eval.lm_eval import LmEval, check_known
from eval.models import load
from eval.models.tokenizer import PlainTokenizer
from tests.tiny_tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4  # log-probabilities of float32 sums in another order

YAML = """
task: {name}
dataset_path: json
dataset_kwargs:
  cache_dir: {folder}/cache
  data_files: {{test: {folder}/rows.jsonl, train: {folder}/rows.jsonl}}
training_split: train
test_split: test
output_type: {kind}
doc_to_text: "{text}"
{more}
"""
TASKS = {
    "tiny_choice": (
        "multiple_choice",
        "질문: {{question}} 답: ",
        'doc_to_choice: "{{choices}}"\ndoc_to_target: label\nmetric_list: [{metric: acc}]',
    ),
    "tiny_rolling": (
        "loglikelihood_rolling",
        "",
        'doc_to_target: "{{text}}"\nmetric_list: [{metric: bits_per_byte}]',
    ),
    "tiny_generate": (
        "generate_until",
        "{{question}}",
        'doc_to_target: "{{question}}"\nmetric_list: [{metric: exact_match}]\n'
        "generation_kwargs: {do_sample: false, max_gen_toks: 8, until: ['이']}",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with a random model, three tasks and their rows."""
    folder = tmp_path_factory.mktemp("lm_eval")
    tokenizer = train_tokenizer()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    fast.save_pretrained(folder / "model")
    torch.manual_seed(1)
    config = GPTNeoXConfig(
        vocab_size=384,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        eos_token_id=2,
        initializer_range=0.3,  # far from uniform, so that greedy choices are clear
    )
    model = GPTNeoXForCausalLM(config)
    head = model.get_output_embeddings().weight.detach()
    head[[0, 1, 3]] = 0  # never the best: special tokens, which hf drops from generated text,
    head[tokenizer.get_vocab_size() :] = 0  # and ids of no token, which we do not generate
    model.save_pretrained(folder / "model")
    rows = [
        {
            "question": f"호랑이 {i}마리가 옛날에 담배를 피우던 이야기입니까?" + " 떡" * i,
            "choices": ["아니오", "예 그렇습니다", "모름" * (i % 3 + 1)],
            "label": i % 3,
            "text": "옛날 옛적에 호랑이가 살았습니다. " * (i % 4 + 1),
        }
        for i in range(12)
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "tasks").mkdir()
    for name, (kind, text, more) in TASKS.items():
        yaml = YAML.format(name=name, folder=folder, kind=kind, text=text, more=more)
        (folder / "tasks" / f"{name}.yaml").write_text(yaml, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def manager(folder):
    return TaskManager(include_path=str(folder / "tasks"), include_defaults=False)


def responses(model, manager, tasks, shots):
    results = simple_evaluate(
        model, tasks=tasks, num_fewshot=shots, task_manager=manager, bootstrap_iters=0
    )
    return {
        task: [
            sample["resps"]
            for sample in sorted(results["samples"][task], key=lambda s: s["doc_id"])
        ]
        for task in tasks
    }


def flat(response):
    if isinstance(response, list | tuple):
        return [x for part in response for x in flat(part)]
    return [response]


@pytest.mark.filterwarnings("ignore")  # lm-eval's and torch's own
@pytest.mark.parametrize("shots", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_equals_the_hf_backend_by_request(folder, manager, shots):
    tasks = list(TASKS) if shots == 0 else ["tiny_choice"]
    path = str(folder / "model")
    theirs = responses(HFLM(path, device="cpu", dtype="float32"), manager, tasks, shots)
    ours = responses(LmEval(load(path)), manager, tasks, shots)
    for task in tasks:
        got, want = flat(ours[task]), flat(theirs[task])
        assert len(got) == len(want) > 0
        for one, other in zip(got, want, strict=True):
            if isinstance(other, float):
                assert one == pytest.approx(other, abs=TOLERANCE)
            elif isinstance(other, bool):
                assert one == other
            else:  # bytes cut off within a character show in theirs alone
                assert one.rstrip("\ufffd") == other.rstrip("\ufffd")
    if shots == 0:
        assert any(flat(ours["tiny_generate"]))  # not all empty


class Silent:
    """A model that must not be asked."""

    content_hash, engine, max_length, end_of_text = "0", "none", 64, 2
    tokenizer = PlainTokenizer(train_tokenizer())


def instance(*arguments):
    return Instance(
        request_type="generate_until", doc={}, arguments=arguments, idx=0, metadata=("t", 0, 1)
    )


def test_sampling_is_refused():
    with pytest.raises(ValueError, match="task t asks for sampling"):
        LmEval(Silent()).generate_until(
            [instance("가", {"until": [], "do_sample": True, "temperature": 0.7})]
        )


def test_an_answer_as_long_as_the_model_is_refused():
    with pytest.raises(ValueError, match="task t asks for 64 new tokens; the model has 64"):
        LmEval(Silent()).generate_until([instance("가", {"until": [], "max_gen_toks": 64})])


def test_empty_continuation_is_refused():
    with pytest.raises(ValueError, match="empty context or continuation cannot be scored"):
        LmEval(Silent())._loglikelihood_tokens([(("가", ""), [1], [])])


def test_unknown_task_names_the_closest(manager):
    with pytest.raises(ValueError, match="no task 'tiny_choise'; close to it: tiny_choice"):
        check_known(["tiny_choise"], manager)


@pytest.mark.slow
def test_program_writes_results_and_goes_on_from_finished_requests(folder, tmp_path):
    command = [
        *(sys.executable, "-m", "eval.lm_eval", f"--model={folder / 'model'}"),
        *("--tasks=tiny_choice", f"--include_path={folder / 'tasks'}", f"--output={tmp_path}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "|tiny_choice|" in done.stdout
    results = json.loads((tmp_path / "lm_eval.json").read_text(encoding="utf-8"))
    assert len(results["samples"]["tiny_choice"]) == 12
    assert len((tmp_path / "requests.jsonl").read_text().splitlines()) == 12


def test_without_lm_eval_one_line_says_what_to_install():
    program = (
        "import sys, runpy; sys.modules['lm_eval'] = None; sys.argv = ['x'];"
        "runpy.run_module('eval.lm_eval', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == "error: this needs lm-evaluation-harness: pip install 'lm_eval>=0.4.13'\n"
