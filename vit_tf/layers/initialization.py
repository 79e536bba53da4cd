"""How weights start, by the reference implementation that a model follows."""

from collections.abc import Callable

import keras

from vit_tf.suggestions import did_you_mean

_normal = keras.initializers.RandomNormal
_scaled = keras.initializers.VarianceScaling


def _xavier_uniform(fused=1.0):
    return _scaled(fused, mode="fan_avg", distribution="uniform")


# Kind of weight -> function that makes a new initializer: a Keras initializer that is used twice
# gives the same numbers twice.
_VISION_TRANSFORMER = {
    "patch_kernel": keras.initializers.LecunNormal,
    "attention_kernel": _xavier_uniform,
    "mlp_kernel": _xavier_uniform,
    "mlp_bias": lambda: _normal(stddev=1e-6),
    "token": keras.initializers.Zeros,
    "head_kernel": keras.initializers.Zeros,
}
_DEIT_STDDEV = 0.02
_DEIT = {
    # torch leaves a convolution at U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)).
    "patch_kernel": lambda: _scaled(1 / 3, mode="fan_in", distribution="uniform"),
    "attention_kernel": lambda fused=1.0: _normal(stddev=_DEIT_STDDEV),
    "mlp_kernel": lambda: _normal(stddev=_DEIT_STDDEV),
    "mlp_bias": keras.initializers.Zeros,
    "token": lambda: _normal(stddev=_DEIT_STDDEV),
    "head_kernel": lambda: _normal(stddev=_DEIT_STDDEV),
}
_REFERENCES: dict[str, dict[str, Callable[..., keras.Initializer]]] = {
    "vision_transformer": _VISION_TRANSFORMER,
    "mixer": {
        **_VISION_TRANSFORMER,
        "mlp_kernel": keras.initializers.LecunNormal,
        "mlp_bias": keras.initializers.Zeros,
    },
    "deit": _DEIT,
    "compact_transformers": {
        **_DEIT,
        # He et al. 2015, whether ReLU follows (a convolutional tokenizer) or not (patches).
        "patch_kernel": lambda: _scaled(2, mode="fan_in", distribution="untruncated_normal"),
        "token": keras.initializers.Zeros,
    },
}


def get_initializer(initialization: str, kind: str, **arguments) -> keras.Initializer:
    """Returns a new initializer for one weight.

    Args:
        initialization: Whose weights to start with: "vision_transformer" (Xavier-uniform kernels,
            MLP biases N(0, 1e-6), token and head zero), "mixer" (that with LeCun-normal kernels
            and zero biases, flax's defaults), "deit" (kernels, tokens and heads N(0, 0.02), zero
            biases, patches as torch starts a convolution) or "compact_transformers" (that with
            He-normal patches and a token of zeros). DeiT's truncation at +-2, a hundred standard
            deviations, cuts nothing and is left out.
        kind: "patch_kernel", "attention_kernel", "mlp_kernel", "mlp_bias", "token" or
            "head_kernel"; all other weights start alike everywhere.
        **arguments: `fused` for "attention_kernel": by how much the scale makes up for the larger
            fan-out of a fused projection.

    Raises:
        ValueError: There is no such initialization; the closest names are given.
    """
    if initialization not in _REFERENCES:
        hint = did_you_mean(initialization, _REFERENCES, count=2)
        known = ", ".join(_REFERENCES)
        raise ValueError(f"Unknown initialization {initialization!r}.{hint} Known: {known}.")
    return _REFERENCES[initialization][kind](**arguments)
