"""What a checkpoint file holds, and which `create_model` call it fits."""

import dataclasses
import math
import re
from typing import Any

from vit_tf.checkpoints.files.opening import open_file, split_path
from vit_tf.checkpoints.names.namings import below, find_root
from vit_tf.models.base import constructor_parameters
from vit_tf.models.flexivit import FlexiViT
from vit_tf.models.registry import registered

# What tells one architecture from another; the rest can be chosen for any variant.
_ARCHITECTURE = (
    "patch_size",
    "width",
    "depth",
    "num_heads",
    "mlp_dim",
    "pool",
    "tokens_mlp_dim",
    "channels_mlp_dim",
    "resnet_stages",
    "resnet_width_factor",
    "stem_widths",
    "tokenizer_layers",
    "tokenizer_kernel_size",
    "tokenizer_width",
    "key_dim",
    "value_dim",
    "mlp_ratio",
    "down_num_heads",
    "down_value_dim",
    "layer_scale_init",
    "activation",
    "norm_epsilon",
)
# What a stored configuration holds that no call gives.
_NOT_SETTINGS = {"name", "variant", "origin", "preprocessing"}


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of `create_model`.

    Args:
        name: A registered variant or a family.
        keywords: The keyword arguments.
    """

    name: str
    keywords: dict[str, Any]

    def __str__(self):
        keywords = "".join(f", {key}={value!r}" for key, value in self.keywords.items())
        return f"vit_tf.create_model({self.name!r}{keywords})"


@dataclasses.dataclass(frozen=True)
class Description:
    """What `describe_checkpoint` finds.

    Args:
        path: The file, with its sub-tree if one was given.
        format: The kind of file: "npz", "torch", "safetensors", "keras" or "tensorflow".
        naming: Whose names its keys are; None where they are nobody's.
        root: What stands before the keys of the model.
        arrays: Key -> (shape, dtype), of the whole file.
        others: What else it holds.
        calls: The `create_model` calls that the file fits, the likeliest first.
        note: What the file does not tell, or why no call was found.
        assumed: Whether the number of heads in the call is but a guess.
    """

    path: str
    format: str
    naming: str | None
    root: str
    arrays: dict[str, tuple[tuple[int, ...], str]]
    others: list[str]
    calls: list[Call]
    note: str
    assumed: bool = False

    def __str__(self):
        lines = [f"{self.path}: {len(self.arrays)} arrays ({self.format})"]
        if self.naming:
            below_root = f", below {self.root.rstrip('/.')!r}" if self.root else ""
            lines.append(f"names: {self.naming}{below_root}")
        lines += [f"fits:  {call}" for call in self.calls]
        if self.note:
            lines.append(f"note:  {self.note}")
        lines += ["", *_array_lines(self.arrays)]
        if self.others:
            shown = ", ".join(self.others[:8]) + (", ..." if len(self.others) > 8 else "")
            lines.append(f"and no arrays: {shown}")
        return "\n".join(lines)


def describe_checkpoint(path: str) -> Description:
    """Tells what a file holds, by names and shapes alone; no data are read.

    Args:
        path: As `load_checkpoint` takes it.

    Raises:
        CheckpointFileError: The file is not there, or damaged.
    """
    place, subtree = split_path(str(path))
    with open_file(place) as file:
        shapes = {key: (array.shape, str(array.dtype)) for key, array in file.arrays.items()}
        facts = (str(path), file.format)
        try:
            naming, root = find_root(file, subtree)
        except ValueError as error:
            return Description(*facts, None, "", shapes, file.others, [], str(error))
        if naming.configure is None:
            calls, note = _own_calls(file.model)
            return Description(*facts, naming.name, root, shapes, file.others, calls, note)
        config = naming.configure(naming.tidy(below(file, root)))
    family = config.pop("family")
    calls = _variants(config, family, naming)
    note, assumed = "", False
    if "num_heads" not in config and family not in ("bit", "mixer"):
        note = "the file tells neither the number of heads nor the activation"
    if not calls:
        if note:
            config["num_heads"], assumed = _usual_heads(config["width"]), True
            note += f"; num_heads={config['num_heads']} is but a guess"
        usual = registered()[family].defaults()
        told = {k: v for k, v in config.items() if k not in usual or usual[k] != v}
        calls = [Call(family, told)]
    return Description(*facts, naming.name, root, shapes, file.others, calls, note, assumed)


def _usual_heads(width):
    """Heads of 64, for one width or that of each stage."""
    return max(width // 64, 1) if isinstance(width, int) else tuple(map(_usual_heads, width))


def _own_calls(about):
    """The call that a file of our own, or what stands beside it, tells of."""
    if about is None or "class" not in about:
        return [], "the configuration stands neither in the file nor in a model.json beside it"
    entries = registered()
    family = [
        name
        for name, entry in entries.items()
        if entry.is_family and entry.model_class.__name__ == about["class"]
    ]
    if not family:
        return [], f"a {about['class']} is no model of vit_tf"
    name = about["variant"] or family[0]
    usual = entries[name].defaults()
    config = {
        key: _plain(value)
        for key, value in about["config"].items()
        if key in constructor_parameters(entries[name].model_class).keys() - _NOT_SETTINGS
        and (key not in usual or _plain(usual[key]) != _plain(value))
    }
    return [Call(name, config)], ""


def _variants(config, family, naming):
    """Calls of registered variants with this architecture, the file's own family first."""
    wanted = registered()[family].defaults() | config
    calls = []
    for name, entry in registered().items():
        if entry.is_family or entry.model_class.__name__ not in naming.covers:
            continue
        if entry.model_class is FlexiViT and config.get("position_includes_class_token", True):
            continue  # its positions never include the class token
        own = entry.defaults()
        if any(_differs(own, wanted, key, config) for key in _ARCHITECTURE):
            continue
        changed = {
            key: value
            for key, value in config.items()
            if key not in _ARCHITECTURE and key in own and _plain(own[key]) != _plain(value)
        }
        calls.append(Call(name, changed))
    return sorted(calls, key=lambda call: not call.name.startswith(family))


def _differs(own, wanted, key, config):
    if key in ("num_heads", "activation", "norm_epsilon") and key not in config:
        return False  # not told
    if key == "layer_scale_init":
        return (own.get(key) is None) != (wanted.get(key) is None)
    return _plain(own.get(key)) != _plain(wanted.get(key))


def _plain(value):
    """Sides as a pair, lists as tuples, so that equal settings compare equal."""
    if isinstance(value, list | tuple):
        value = tuple(value)
        return value[0] if len(value) == 2 and value[0] == value[1] else value
    return value


def _array_lines(arrays):
    """A line for each array; those that differ by nothing but a number share one."""
    groups: dict[tuple, list[str]] = {}
    for key, facts in arrays.items():
        groups.setdefault((re.sub(r"\d+", "#", key), *facts), []).append(key)
    lines = [
        (name, shape, dtype)
        for (_, shape, dtype), keys in groups.items()
        for name in _together(keys)
    ]
    width = max((len(name) for name, _, _ in lines), default=0)
    for name, shape, dtype in lines:
        yield f"  {name:{width}}  {dtype:8}  {shape}"


def _together(keys):
    """One name for keys of one pattern, if all of some ranges of numbers are there."""
    numbers = [re.findall(r"\d+", key) for key in keys]
    columns = [sorted(set(column), key=int) for column in zip(*numbers, strict=True)]
    whole = all(int(c[-1]) - int(c[0]) + 1 == len(c) for c in columns)
    if not whole or math.prod(len(column) for column in columns) != len(keys):
        return keys
    ranges = (c[0] if len(c) == 1 else f"{{{c[0]}..{c[-1]}}}" for c in columns)
    return [re.sub(r"\d+", lambda match: next(ranges), keys[0])]
