"""Pages of reference that list what is registered: models, preprocessing ops, gin files."""

import re
from pathlib import Path

from api_pages import first_paragraph

from vit_tf.analysis.model_table import BEGIN, END
from vit_tf.data import preprocess  # noqa: F401  (registers the ops)
from vit_tf.data.op_registry import get_op, list_ops

_FOLDED = re.compile(r"<details><summary><b>(\w+)</b>: (.*?) \((\d+)\)</summary>\n")
_FOLDERS = {
    "recipes": "Pre-training, and training from scratch.",
    "finetune": "Fine-tuning of public or own weights.",
    "fewshot": "Probes, inside training or by `tools/fewshot.py`.",
    "protocols": "Given after another file: how to fine-tune.",
    "augmentation": "Levels of AugReg, given after a recipe of it.",
    "models": "Included by recipes; given after one, they change its model.",
    "data": "Included by recipes: data sets.",
    "vtab": "VTAB-1k, for `tools/vtab.py`.",
    "sweeps": "Grids, for `tools/sweep.py` and `tools/vtab.py`.",
}


def models_page(root: Path) -> str:
    """The table of models that `make model-table` writes into the README, unfolded."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    table = readme.partition(BEGIN)[2].partition(END)[0].replace("</details>", "")
    table = _FOLDED.sub(r"## \1\n\n\2, \3 variants.\n", table)
    return f"""# Models

Every registered variant, with 1000 classes. GMACs are 10⁹ multiply-adds of matrix products and
convolutions for one image of the size shown. `augreg: in21k` stands for
`create_model("vit_b16", weights="augreg_in21k")`. What a family takes: [Families](families.md).

{table.strip()}
"""


def ops_page() -> str:
    """Every preprocessing op with its signature."""
    rows = (
        f"## {op.name}\n\n`{op.signature}`\n\n{first_paragraph(op.factory.__doc__)} "
        f"See [`{op.factory.__name__}`][{op.factory.__module__}.{op.factory.__qualname__}]."
        f"{' It draws random numbers.' if op.random else ''}"
        for op in map(get_op, list_ops())
    )
    body = "\n\n".join(rows)
    return f"""# Preprocessing ops

A preprocessing string joins them: `decode|resize(256)|central_crop(224)|value_range(-1, 1)`. An op
of your own: [Extending](../guides/extending.md#an-op).

{body}
"""


def gin_files_page(root: Path) -> str:
    """Every file of gin/ with the first sentence of its header."""
    sections = ["# gin files", "Paths are relative to the project's folder."]
    sections += [_gin_rows([root / "gin" / "quickstart.gin"], root)]
    for folder, text in _FOLDERS.items():
        sections += [f"## {folder}", text]
        sections += [_gin_rows(sorted((root / "gin" / folder).glob("*.gin")), root)]
    return "\n\n".join(sections) + "\n"


def _gin_rows(files: list[Path], root: Path) -> str:
    rows = [f"| `{file.relative_to(root)}` | {_header(file)} |" for file in files]
    return "\n".join(["| file | |", "|---|---|", *rows])


def _header(file: Path) -> str:
    """The first paragraph of the comment with which a gin file begins."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.lstrip("#").strip()
        if not line.startswith("#") or not text:
            break
        lines.append(text)
    return " ".join(lines).replace("|", r"\|")
