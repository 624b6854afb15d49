"""KLUE by prompts alone: topics, inference, similarity, relations (Park et al., arXiv 2105.09680).

The labels of KLUE's test splits are not public, so its dev split is both "dev" and "test" here.
The prompts of YNAT, NLI and STS are those of the `polyglot` branch of lm-evaluation-harness; that
of RE is ours.
"""

from eval.fields import integer, label, member, text
from eval.task import Field, Prompt, Row, Source, Task

SPLITS = {"train": ("train",), "dev": ("dev", "validation"), "test": ("dev", "validation")}

TOPICS = ("IT과학", "경제", "사회", "생활문화", "세계", "스포츠", "정치")
INFERENCES = ("entailment", "neutral", "contradiction")
RELATIONS = {
    "no_relation": "관계 없음",
    "org:dissolved": "해산일",
    "org:founded": "설립일",
    "org:place_of_headquarters": "본부 소재지",
    "org:alternate_names": "단체의 다른 이름",
    "org:member_of": "상위 단체",
    "org:members": "하위 단체",
    "org:political/religious_affiliation": "정치·종교 성향",
    "org:product": "제품",
    "org:founded_by": "설립자",
    "org:top_members/employees": "대표 또는 임원",
    "org:number_of_employees/members": "구성원 수",
    "per:date_of_birth": "생년월일",
    "per:date_of_death": "사망일",
    "per:place_of_birth": "출생지",
    "per:place_of_death": "사망지",
    "per:place_of_residence": "거주지",
    "per:origin": "출신",
    "per:employee_of": "소속",
    "per:schools_attended": "출신 학교",
    "per:alternate_names": "별명",
    "per:parents": "부모",
    "per:children": "자녀",
    "per:siblings": "형제자매",
    "per:spouse": "배우자",
    "per:other_family": "친척",
    "per:colleagues": "동료",
    "per:product": "작품",
    "per:religion": "종교",
    "per:title": "직함",
}


def _hypothesis(row: Row) -> str:
    stripped = row["hypothesis"].strip()
    return stripped if stripped.endswith(".") else stripped + "."


YNAT = Task(
    name="klue_ynat",
    title="KLUE YNAT",
    version=1,
    source=Source(
        fields=(Field("title", text), Field("label", label(TOPICS))),
        words=("klue-ynat", "ynat"),
        hub="klue/klue",
        config="ynat",
        splits=SPLITS,
    ),
    prompts={
        "original": Prompt(
            context=lambda row: (
                "질문: 다음의 제목을 가지는 뉴스는 어느 분야의 뉴스인가요?\n"
                f"제목: {row['title']}\n분야:"
            ),
            choices=lambda row: ("과학", "경제", "사회", "생활", "세계", "스포츠", "정치"),
        )
    },
    gold=lambda row: row["label"],
    labels=TOPICS,
    metrics=("macro_f1", "acc"),
)
NLI = Task(
    name="klue_nli",
    title="KLUE NLI",
    version=1,
    source=Source(
        fields=(
            Field("premise", text),
            Field("hypothesis", text),
            Field("label", label(INFERENCES), column="gold_label"),
        ),
        words=("klue-nli", "nli"),
        hub="klue/klue",
        config="nli",
        splits=SPLITS,
    ),
    prompts={
        "original": Prompt(
            context=lambda row: (
                f"{row['premise']}\n질문: {_hypothesis(row)} 참, 거짓, 중립 중 무엇인가요?\n정답:"
            ),
            choices=lambda row: ("참", "중립", "거짓"),
        )
    },
    gold=lambda row: row["label"],
    labels=INFERENCES,
    metrics=("acc", "macro_f1"),
)
STS = Task(
    name="klue_sts",
    title="KLUE STS",
    version=1,
    source=Source(
        fields=(
            Field("sentence1", text),
            Field("sentence2", text),
            Field("labels", member("binary-label", integer(0, 1))),
        ),
        words=("klue-sts", "sts"),
        hub="klue/klue",
        config="sts",
        splits=SPLITS,
    ),
    prompts={
        "original": Prompt(
            context=lambda row: (
                "질문: 문장 1과 문장 2는 서로 유사한 의미를 가지나요?\n"
                f"문장 1: {row['sentence1']}\n문장 2: {row['sentence2']}\n정답:"
            ),
            choices=lambda row: ("아니오", "예"),
        )
    },
    gold=lambda row: row["labels"],
    labels=("0", "1"),
    metrics=("f1", "acc", "macro_f1"),
)
RE = Task(
    name="klue_re",
    title="KLUE RE",
    version=1,
    source=Source(
        fields=(
            Field("sentence", text),
            Field("subject_entity", member("word", text)),
            Field("object_entity", member("word", text)),
            Field("label", label(tuple(RELATIONS))),
        ),
        words=("klue-re", "re"),
        hub="klue/klue",
        config="re",
        splits=SPLITS,
    ),
    prompts={
        "original": Prompt(
            context=lambda row: (
                f"문장: {row['sentence']}\n"
                f"질문: 문장에서 '{row['subject_entity']}'에 대한 '{row['object_entity']}'의 "
                "관계는 무엇인가요?\n정답:"
            ),
            choices=lambda row: tuple(RELATIONS.values()),
        )
    },
    gold=lambda row: row["label"],
    labels=tuple(RELATIONS),
    metrics=("micro_f1_norm", "micro_f1", "acc_norm", "acc"),
)
