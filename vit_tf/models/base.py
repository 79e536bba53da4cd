"""What the models of all families share: facts about the input, the head, the configuration."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import keras

from vit_tf.layers.batch_norm import foldable_norms
from vit_tf.models.arguments import as_pair, check_count, check_images
from vit_tf.models.card import ModelCard, Origin
from vit_tf.models.preprocessing import Preprocessing


class ImageModel(keras.Model):
    """A model of images, [batch, height, width, channels], that ends in a linear head.

    A family derives from it and keeps every argument of its constructor as an attribute of the
    same name: `get_config` reads them there. Its constructor hands these arguments on:

    Args:
        image_size: Side of the input in pixels, or (height, width).
        num_classes: Size of the output; 0 leaves out the head.
        head_bias_init: Initial bias of the head, e.g. -6.9 for sigmoid losses on 1000 classes.
        channels: Number of image channels.
        preprocessing: Facts about the input; images in [-1, 1] by default. Its `image_size`
            and `channels` are always the model's.
        variant: Registered name; `create_model` sets it.
        origin: Where the weights come from; `load_checkpoint` sets it.
        name: Name of the Keras model, with which the paths of all weights begin.
        **kwargs: `dtype` and `trainable` of `keras.Model`.

    Attributes:
        preprocessing: The `Preprocessing` of this model.
        lora: The `LoRA` that adapted the model; None if none did.
        load_report: What the last `load_checkpoint` into this model returned; None before.
        intermediate_names: Names that `extract_features` can return.
        unused_keywords: Arguments of a base class's constructor that mean nothing in the family.
        head_layer: Class of the heads' layers, `keras.layers.Dense` or one derived from it.
        norms_folded: Whether the batch norms are folded into their neighbours, see
            `fold_batch_norms`.
    """

    head_layer: type[keras.layers.Dense] = keras.layers.Dense
    unused_keywords: tuple[str, ...] = ()
    # How `load_checkpoint` resizes the position table; None for the way of the file's family.
    position_resize: str | None = None

    def __init__(
        self,
        image_size: int | tuple[int, int],
        num_classes: int = 1000,
        head_bias_init: float = 0.0,
        channels: int = 3,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        variant: str | None = None,
        origin: Origin | Mapping[str, Any] | None = None,
        name: str | None = None,
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        check_count("num_classes", num_classes, minimum=0)
        check_count("channels", channels)
        self.image_size = as_pair("image_size", image_size)
        self.num_classes = num_classes
        self.head_bias_init = head_bias_init
        self.channels = channels
        facts = {**_as_dict(preprocessing), "image_size": self.image_size, "channels": channels}
        self.preprocessing = Preprocessing(**facts)
        self.variant = variant
        self.origin = Origin(**_as_dict(origin)) if origin is not None else None
        self.lora = None
        self.load_report = None
        self.norms_folded = False

    @property
    def forms(self) -> dict[str, Callable[[], AbstractContextManager]]:
        """Other ways to answer with the same weights: contexts by name, within which `call` does.

        An export serves each as `classify_<name>`.
        """
        return {}

    @property
    def card(self) -> ModelCard:
        """What the model expects and gives, and where its weights come from."""
        return ModelCard(
            self.variant or type(self).__name__,
            sum(math.prod(weight.shape) for weight in self.weights if not is_statistic(weight)),
            self.num_classes,
            self.preprocessing,
            self.origin,
        )

    @property
    def input_shape(self) -> tuple:
        """Shape of a batch of images, (None, height, width, channels)."""
        return (None, *self.image_size, self.channels)

    def holds_prefix_tokens(self, name: str) -> bool:
        """Whether the tokens before the patches, if there are any, stand in an intermediate."""
        in_block = name.startswith("block") and not name.endswith("attn_weights")
        return in_block or name in ("tokens", "encoded")

    def check_images(self, images) -> None:
        """Raises a ValueError unless the images have the model's shape and are no integers."""
        check_images(images, self.image_size, self.channels, self.preprocessing.ops)

    @property
    def heads(self) -> Mapping[str, int]:
        """Name of every head -> size of the vector that enters it."""
        raise NotImplementedError

    def create_heads(self) -> None:
        """Sets an attribute for each of `heads`: a dense layer, or None without classes.

        A head computes in float32 whatever the policy, so logits are float32 under mixed precision.
        """
        for name in self.heads:
            layer = None
            if self.num_classes:
                layer = self.head_layer(
                    self.num_classes,
                    kernel_initializer=self.head_kernel_initializer,
                    bias_initializer=keras.initializers.Constant(self.head_bias_init),
                    dtype=keras.backend.result_type(self.compute_dtype, "float32"),
                    name=name,
                )
            setattr(self, name, layer)

    @property
    def head_kernel_initializer(self):
        """How a head's kernel starts; zeros in the reference implementations on JAX."""
        return "zeros"

    def build_heads(self) -> None:
        """Creates the weights of the heads."""
        for name, width in self.heads.items():
            layer = getattr(self, name)
            if layer is not None:
                layer.build((None, width))

    def reset_head(self, num_classes: int) -> None:
        """Replaces the head by a fresh one for `num_classes` classes; 0 removes it.

        Functions that were traced before, and optimizers built before, still know the old head.

        Raises:
            ValueError: `num_classes` is no whole number from 0 up; the model is as it was.
        """
        check_count("num_classes", num_classes, minimum=0)
        for name in self.heads:
            if getattr(self, name) is not None:
                self._layers.remove(getattr(self, name))
        self.num_classes = num_classes
        # Keras locks a model's layers once it is built; this is its own way to change them.
        self._tracker.unlock()
        self.create_heads()
        with keras.name_scope(self.name):  # so that the weights' paths stay those of before
            self.build_heads()
        self._tracker.lock()

    def get_config(self):
        """Returns the constructor's arguments."""
        names = [name for name in constructor_parameters(type(self)) if name not in _KERAS]
        config = {name: getattr(self, name) for name in names}
        config["preprocessing"] = dataclasses.asdict(self.preprocessing)
        config["origin"] = None if self.origin is None else dataclasses.asdict(self.origin)
        folded = {"norms_folded": True} if self.norms_folded else {}
        return {**super().get_config(), **config, **folded}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds a model of a configuration, with batch norms folded if it says so."""
        config = dict(config)
        folded = config.pop("norms_folded", False)
        model = super().from_config(config, custom_objects)
        if folded:
            model.fold_norms()
        return model

    def fold_norms(self) -> None:
        """Folds the batch norms of this very model, see `fold_batch_norms`."""
        for norm in foldable_norms(self._flatten_layers()):
            norm.fold()
        self.norms_folded = True


def is_statistic(weight: keras.Variable) -> bool:
    """Whether a weight is what batch normalisation has counted, not learnt."""
    return weight.path.rpartition("/")[2] in ("moving_mean", "moving_variance")


_KERAS = ("name", "dtype", "trainable")


def constructor_parameters(model_class: type) -> dict[str, inspect.Parameter]:
    """Returns the keywords of a constructor, those of the bases that it hands `**kwargs` to too.

    A derived class's own default replaces that of its base.
    """
    unused = getattr(model_class, "unused_keywords", ())
    found = _all_parameters(model_class)
    return {name: parameter for name, parameter in found.items() if name not in unused}


def unused_parameters(model_class: type) -> dict[str, Any]:
    """Returns the keywords of the bases that mean nothing in the family, with their only value."""
    found = _all_parameters(model_class)
    names = getattr(model_class, "unused_keywords", ())
    return {name: found[name].default for name in names if name in found}


def _all_parameters(model_class):
    found: dict[str, inspect.Parameter] = {}
    for base in model_class.__mro__:
        if base in (keras.Model, keras.layers.Layer):
            break
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                found.setdefault(parameter.name, parameter)
        if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def _as_dict(facts):
    return dataclasses.asdict(facts) if dataclasses.is_dataclass(facts) else dict(facts or {})
