"""The reference cases of `golden/`, and the `create_model` call that each one's meta.json means."""

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

FAMILIES = (
    "vision_transformer",
    "big_vision",
    "deit",
    "big_transfer",
    "early_convolutions",
    "compact_transformers",
    "levit",
    "cvt",
    "cmt",
    "dynamic_vit",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One folder of `golden/`."""

    folder: Path

    @functools.cached_property
    def meta(self) -> dict:
        """What meta.json says."""
        return json.loads((self.folder / "meta.json").read_text())

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The inputs and expected outputs."""
        return dict(np.load(self.folder / "io.npz"))

    @property
    def checkpoints(self) -> list[Path]:
        """Checkpoint files, all of the same weights."""
        return [self.folder / entry["file"] for entry in self.meta["checkpoint_files"]]

    def bound(self, key: str) -> float:
        """The difference that the README of `golden/` allows for a key."""
        tolerance = self.meta["tolerance"]["atol"]
        if key.endswith("logits"):
            return tolerance["logits"]
        relative = tolerance["other_keys_times_max_abs_of_the_key"]
        return relative * float(np.abs(self.arrays[key]).max())

    def check(self, key: str, ours: Any) -> None:
        """Asserts that a value is the stored one within the tolerance."""
        expected = self.arrays[key]
        assert np.shape(ours) == expected.shape, key
        difference = np.abs(np.asarray(ours) - expected).max()
        assert difference <= self.bound(key), f"{key}: {difference} > {self.bound(key)}"


def find_cases() -> list[Case]:
    """Every case of the families above; none where `golden/` is not there."""
    root = Path(__file__).resolve().parents[2]
    golden = Path(os.environ.get("VIT_TF_SHARED", root.parent / "shared")) / "golden"
    return [
        Case(path.parent)
        for family in FAMILIES
        for path in sorted(golden.glob(f"{family}/*/meta.json"))
    ]


def configuration(meta: dict) -> dict:
    """The keywords of `create_model`, its `name` included, that build a case's model."""
    config = meta["config"]
    kind = config["model"]
    family = next(family for words, family in _KINDS if words in kind)
    if "stored_patch" in config:
        config = {**config, "patch": config["stored_patch"]}
    found = {"name": family, "image_size": tuple(config["image_size"])}
    found |= {ours: config[theirs] for theirs, ours in _KEYWORDS.items() if theirs in config}
    if family in ("vit", "hybrid", "flexivit"):
        pool = config["pool"]
        found["pool"] = "token" if pool == "tok" else pool
        if "sine" in config["position_embedding"]:
            found["position_embedding"] = "sincos2d"
    if family == "vit":
        found["position_includes_class_token"] = meta["family"] == "vision_transformer"
    if "1-D sine" in config.get("position_embedding", ""):
        found["position_embedding"] = "sincos1d"
    if "tokenizer" in config:
        found |= {ours: config["tokenizer"][theirs] for theirs, ours in _TOKENIZER.items()}
    if family == "levit":
        found |= {ours: config[ours] for ours in _LEVIT}
        step = config["down_sampling"]
        found |= {f"down_{ours}": step[theirs] for theirs, ours in _LEVIT_STEP.items()}
    if "stem" in config:
        del found["patch_size"]
        found["stem_widths"] = config["stem"]["widths"][:-1]
        found["stem_strides"] = config["stem"]["strides"][:-1]
    return found


_KINDS = (
    ("deit-III", "deit3"),
    ("deit distilled", "deit_distilled"),
    ("deit", "deit"),
    ("bit", "bit"),
    ("flexivit", "flexivit"),
    ("hybrid", "hybrid"),
    ("mixer", "mixer"),
    ("ViT_", "vit_c"),
    ("DynamicViT", "dynamic_vit"),
    ("CCT", "cct"),
    ("CVT", "compact_vit"),
    ("ViT-Lite", "vit_lite"),
    ("CvT", "cvt"),
    ("CMT", "cmt"),
    ("LeViT", "levit"),
    ("vit", "vit"),
)
_LEVIT = ("stem_widths", "key_dim", "value_dim", "mlp_ratio", "distillation_head")
_LEVIT_STEP = {
    "heads": "num_heads",
    "value_dim": "value_dim",
    "stride": "stride",
    "mlp_ratio": "mlp_ratio",
}
_TOKENIZER = {
    "layers": "tokenizer_layers",
    "kernel": "tokenizer_kernel_size",
    "stride": "tokenizer_stride",
    "padding": "tokenizer_padding",
    "channels_between": "tokenizer_width",
}
_KEYWORDS = {
    "patch": "patch_size",
    "width": "width",
    "depth": "depth",
    "heads": "num_heads",
    "mlp_dim": "mlp_dim",
    "pruning_before_blocks": "pruning_blocks",
    "keep_ratio": "keep_ratios",
    "num_classes": "num_classes",
    "representation_size": "representation_size",
    "tokens_mlp_dim": "tokens_mlp_dim",
    "channels_mlp_dim": "channels_mlp_dim",
    "resnet_stages": "resnet_stages",
    "units_per_block": "resnet_stages",
    "resnet_width_factor": "resnet_width_factor",
    "width_factor": "resnet_width_factor",
    "stem_width": "stem_width",
    "stem_strides": "stem_strides",
    "reduction": "key_value_reduction",
    "final_width": "representation_size",
    "embed_kernel": "patch_size",
    "embed_stride": "patch_stride",
    "embed_padding": "patch_padding",
}
