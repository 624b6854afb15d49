"""Data sets of Hugging Face: saved to disk, or by name from the hub.

`datasets` keeps everything in Arrow files, which pyarrow reads: the library itself (an extra) is
needed only to fetch a data set by its name.
"""

import json

from etils import epath

PREFIX = "hf:"


def files_saved_in(path: epath.Path) -> list[epath.Path]:
    """Returns the Arrow files of a directory that `save_to_disk` wrote; else none.

    Raises:
      ValueError: its state.json cannot be read.
    """
    try:
        if (path / "dataset_dict.json").exists():
            splits = json.loads((path / "dataset_dict.json").read_text())["splits"]
            return [file for split in splits for file in files_saved_in(path / split)]
        if (path / "state.json").exists():
            files = json.loads((path / "state.json").read_text())["_data_files"]
            return [path / file["filename"] for file in files]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not what datasets' save_to_disk writes ({error!r})") from None
    return []


def files_of(name: str) -> list[epath.Path]:
    """Fetches `hf:NAME`, `hf:NAME:SPLIT` or `hf:NAME:SPLIT:CONFIG`; returns its Arrow files.

    Raises:
      ValueError: there is no such data set, or no `datasets`.
    """
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{name} needs the hf extra: pip install -e '.[hf]'") from None
    path, split, config = (*name.removeprefix(PREFIX).split(":"), None, None)[:3]
    try:
        loaded = datasets.load_dataset(path, config or None, split=split or "train")
    except Exception as error:  # of many kinds, by library and network
        line = " ".join(str(error).split())
        raise ValueError(f"{name}: {line or type(error).__name__}") from None
    return [epath.Path(file["filename"]) for file in loaded.cache_files]
