"""Data-efficient image Transformers: DeiT (Touvron et al. 2020) and DeiT-III (2022).

Architecture, initialisation and defaults follow facebookresearch/deit, `models.py` and
`models_v2.py`. Fine-tuned variants differ by nothing but `image_size=384`.
"""

import keras

from vit_tf.layers import ClassToken
from vit_tf.models.registry import register, register_family
from vit_tf.models.vit import SIZES, ViT

_VARIANTS = [("Ti", 16), ("S", 16), ("B", 16)]
_VARIANTS_III = [("Ti", 16), ("S", 16), ("M", 16), ("B", 16), ("L", 16), ("H", 14)]

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# What sets a DeiT apart from a ViT.
DEIT = {
    "activation": "gelu",
    "initialization": "deit",
    "preprocessing": {
        **_IMAGENET,
        "interpolation": "bicubic",
        "antialias": True,
        "crop_ratio": 0.875,
    },
}
_DEIT_III = {
    **DEIT,
    "preprocessing": {**DEIT["preprocessing"], "crop_ratio": 1.0},
    "position_includes_class_token": False,
    "layer_scale_init": 1e-4,
    "stochastic_depth_schedule": "constant",
}


@keras.saving.register_keras_serializable(package="vit_tf")
class DistilledViT(ViT):
    """DeiT with a distillation token (Touvron et al. 2020, section 4).

    The sequence is class token, distillation token, patches. Each of the two tokens has a linear
    head of its own: the class head learns the label, the distillation head what a teacher says.

    Args:
        **kwargs: Arguments of `ViT`; positions have a row for either token if
            `position_includes_class_token`.
    """

    unused_keywords = ("pool", "representation_size")

    def create_encoder(self):
        """Creates what a ViT has, and the distillation token."""
        super().create_encoder()
        self.distillation_token = ClassToken(
            self.initialization, dtype=self.dtype_policy, name="distillation_token"
        )

    @property
    def num_prefix_tokens(self):
        """Class token and distillation token."""
        return 2

    @property
    def heads(self):
        """See `ImageModel.heads`."""
        return {"head": self.width, "head_dist": self.width}

    def build_prefix_tokens(self, patches_shape):
        """Creates both tokens."""
        super().build_prefix_tokens(patches_shape)
        self.distillation_token.build(patches_shape)

    def prepend_tokens(self, tokens):
        """Puts class token and distillation token before the patches."""
        return super().prepend_tokens(self.distillation_token(tokens))

    def classify(self, tokens, grid_size, training, intermediates):
        """Runs both heads.

        Returns:
            The mean of both heads' logits, [batch, num_classes]; in training the pair (logits of
            the class head, logits of the distillation head). Where num_classes is 0, the mean of
            the vectors that would enter the heads, as timm has it.
        """
        pre_logits, pre_logits_dist = tokens[:, 0], tokens[:, 1]
        intermediates.record("pre_logits", pre_logits)
        intermediates.record("pre_logits_dist", pre_logits_dist)
        if self.head is None:
            return (pre_logits + pre_logits_dist) / 2
        logits_class, logits_dist = self.head(pre_logits), self.head_dist(pre_logits_dist)
        logits = (logits_class + logits_dist) / 2
        intermediates.record("logits_class", logits_class)
        intermediates.record("logits_dist", logits_dist)
        intermediates.record("logits", logits)
        return (logits_class, logits_dist) if training else logits

    @property
    def intermediate_names(self):
        """Names of the tensors that `extract_features` can return, in the order of computation."""
        names = super().intermediate_names
        names = [*names[: names.index("head_input")], "pre_logits", "pre_logits_dist"]
        return names + (["logits_class", "logits_dist", "logits"] if self.num_classes else [])


def _config(size, patch):
    width, depth, mlp_dim, heads = SIZES[size.lower()]
    return {
        "patch_size": patch,
        "width": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_dim": mlp_dim,
    }


register_family("deit", ViT, DEIT)
register_family("deit_distilled", DistilledViT, DEIT)
register_family("deit3", ViT, _DEIT_III)
for _size, _patch in _VARIANTS:
    _name = f"deit_{_size.lower()}{_patch}"
    register(_name, ViT, _config(_size, _patch) | DEIT, f"DeiT-{_size}")
    register(
        f"{_name}_distilled",
        DistilledViT,
        _config(_size, _patch) | DEIT,
        f"DeiT-{_size}-distilled",
    )
for _size, _patch in _VARIANTS_III:
    _name = f"deit3_{_size.lower()}{_patch}"
    register(_name, ViT, _config(_size, _patch) | _DEIT_III, f"DeiT-III-{_size}")
