"""Loading a checkpoint file into a model."""

import operator
import warnings
from collections.abc import Sequence

import keras

from vit_tf.checkpoints.describe import describe_checkpoint
from vit_tf.checkpoints.files.opening import open_file, split_path
from vit_tf.checkpoints.names.namings import are_akin, below, find_root, namings_of
from vit_tf.checkpoints.names.own import OWN
from vit_tf.checkpoints.plan import LoadPlan
from vit_tf.checkpoints.positions import Grid
from vit_tf.checkpoints.report import LoadReport
from vit_tf.models import Origin
from vit_tf.models.arguments import check_choice
from vit_tf.models.lora import adaptation


def load_checkpoint(
    model: keras.Model,
    path: str,
    *,
    strict: bool = False,
    head: str | Sequence[int] = "auto",
    position_resize: str | None = None,
    position_grid: Grid | None = None,
) -> LoadReport:
    """Loads a public checkpoint, or one of our own, into a model.

    The format and its names are recognised by the contents: `.npz` of vision_transformer,
    big_vision and BiT; `.pth` / `.pt` and `.safetensors` with the names of DeiT, timm, Hugging Face
    and pycls; `.keras`; a training checkpoint or the folder that holds them. No file can run code.

    What differs in size is adapted: position tables are resized, patch kernels PI-resized
    (Beyer et al. 2022), a head of other classes is left fresh. Everything is decided before the
    first weight is changed.

    Args:
        model: A model of `create_model`, neither adapted by LoRA nor folded.
        path: Any path that `tf.io.gfile` reads, with a sub-tree of the file where it holds several
            models: "file.npz:img", "run.pth:model_ema".
        strict: Raise unless every weight of the model and every key of the file was used. Otherwise
            what was not is warned about. Resized and reset ones are no errors.
        head: "auto" loads a head of the model's number of classes and leaves another one fresh,
            "reset" always leaves it fresh, "keep" insists on loading it; a sequence says for each
            of the model's classes which class of the file it is.
        position_resize: Method of `layers.resize_matrix`; None for that of the file's own family.
        position_grid: (rows, columns) of the file's position table, where it is neither square nor
            in the proportions of the model's.

    Returns:
        The account of all weights and keys.

    Raises:
        CheckpointFileError: The file is not there, damaged, or of no known naming.
        ValueError: Nothing in the file fits the model; or, if strict, something does not; or the
            model is adapted by LoRA, or its batch norms are folded.
    """
    if getattr(model, "norms_folded", False):
        raise ValueError(
            "The model's batch norms are folded already; load a checkpoint into one that is not, "
            "and fold that."
        )
    if adaptation(model) is not None:
        raise ValueError(
            "The model is adapted by LoRA, to the kernels that it has; load a checkpoint before "
            "that, as create_model(name, weights=..., lora=...) does."
        )
    place, subtree = split_path(str(path))
    with open_file(place) as file:
        naming, root = find_root(file, subtree)
        _check_family(model, naming, file)
        report = LoadReport(str(path), naming.name)
        plan = LoadPlan(model, naming, below(file, root), root, report)
        method = position_resize or model.position_resize or naming.position_method
        plan.decide(_checked_head(head, model), method, position_grid)
        for key in file.arrays:
            if not key.startswith(root):
                report.skipped[key] = f"outside of {root.rstrip('/.')!r}"
        report.skipped |= dict.fromkeys(file.others, "no array of weights")
        _judge(report, strict, head)
        plan.carry_out()
    model.origin = Origin(file=str(path))
    model.load_report = report
    return report


def _checked_head(head, model):
    if isinstance(head, str):
        check_choice("head", head, ("auto", "keep", "reset"))
        return head
    if len(head) != model.num_classes:
        raise ValueError(
            f"head names {len(head)} classes of the file and the model has {model.num_classes}."
        )
    try:
        return [operator.index(number) for number in head]
    except TypeError as error:
        raise ValueError(f"head={head} must be numbers of classes of the file.") from error


def _check_family(model, naming, file):
    kind, told = type(model).__name__, (file.model or {}).get("class", "")
    if naming in namings_of(model) and (naming is not OWN or are_akin(told, model)):
        return
    what = f"is of a {told}"
    if naming is not OWN:
        what = f"is named like a {' or '.join(naming.covers)} ({naming.name})"
    raise ValueError(
        f"{file.path} {what}, and the model is a {kind}. tools/convert_checkpoint.py --inspect "
        f"{file.path} tells which create_model call it fits."
    )


def _judge(report, strict, head):
    """Raises if nothing fits, or if strict; warns of what does not fit."""
    if not report.loaded:
        raise ValueError(
            f"{report.file} has nothing that fits this model.\n{report}\n{_hint(report)}"
        )
    if report.complete:
        return
    if strict:
        raise ValueError(
            f"{report.file} does not fit this model exactly.\n{report}\n{_hint(report)}"
        )
    if isinstance(head, str) and head == "keep":
        lost = [w for w in (*report.missing, *report.mismatched) if w.startswith("head")]
        if lost:
            raise ValueError(f"{report.file} has no head for this model.\n{report.problems()}")
    lines = report.problems().splitlines()
    more = [f"  and {len(lines) - 10} more: print the report"] if len(lines) > 10 else []
    warnings.warn(
        f"{report.file} does not fit this model exactly; what is missing or mismatched keeps the "
        "values that it had:\n" + "\n".join([*lines[:10], *more, _hint(report)]),
        stacklevel=3,
    )


def _hint(report):
    calls = describe_checkpoint(report.file).calls
    return f"  The file fits {calls[0]}." if calls else ""
