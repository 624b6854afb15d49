"""HAE-RAE Bench: what one knows who lives in Korea (Son et al., arXiv 2309.02706).

The five subtasks that lm-evaluation-harness has, as its tasks ask them. There is one split, which
shots come from as well: never the row that is asked.
"""

from eval.fields import one_of, text
from eval.task import Field, Prompt, Row, Source, Task

LETTERS = ("(A)", "(B)", "(C)", "(D)", "(E)")


def _letters(row: Row) -> tuple[str, ...]:
    return LETTERS


def _task(name: str, config: str, title: str) -> Task:
    return Task(
        name=f"haerae_{name}",
        title=f"HAE-RAE {title}",
        version=1,
        source=Source(
            fields=(Field("query", text), Field("answer", one_of(LETTERS))),
            words=(config,),
            hub="HAERAE-HUB/HAE_RAE_BENCH",
            config=config,
            splits={"test": ("test",)},
        ),
        prompts={"original": Prompt(context=lambda row: row["query"], choices=_letters)},
        gold=lambda row: LETTERS.index(row["answer"]),
        shots_from="same",
        metrics=("acc", "acc_norm"),
    )


TASKS = (
    _task("general_knowledge", "general_knowledge", "General knowledge"),
    _task("history", "history", "History"),
    _task("loan_word", "loan_words", "Loan words"),
    _task("rare_word", "rare_words", "Rare words"),
    _task("standard_nomenclature", "standard_nomenclature", "Standard nomenclature"),
)
