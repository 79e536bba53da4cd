"""What a model expects of its input images."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Facts about a model's input, carried by the model so that its users cannot disagree.

    Either `value_range` or both `mean` and `std` say how pixel values are scaled.

    Args:
        image_size: (height, width) in pixels.
        value_range: Range that pixel values 0..255 are mapped to.
        mean: Mean per channel that is subtracted after scaling to [0, 1].
        std: Standard deviation per channel that is divided by after that.
        crop_ratio: Share of the resized image's shorter side that the evaluation's central crop
            keeps, as in timm and torchvision. None: images are stretched to `image_size`, as in
            vision_transformer and big_vision.
        interpolation: How images are resized, e.g. "bilinear" or "bicubic".
        antialias: Whether resizing smooths what it makes smaller, as Pillow does.
        channels: Number of channels that images are decoded to.

    Raises:
        ValueError: Only one of mean and std is given, or crop_ratio is not in (0, 1].
    """

    image_size: tuple[int, int]
    value_range: tuple[float, float] = (-1, 1)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_ratio: float | None = None
    interpolation: str = "bilinear"
    antialias: bool = False
    channels: int = 3

    def __post_init__(self):
        for field in ("image_size", "value_range", "mean", "std"):  # lists come out of JSON
            value = getattr(self, field)
            object.__setattr__(self, field, None if value is None else tuple(value))
        if (self.mean is None) != (self.std is None):
            raise ValueError(
                f"Preprocessing needs both mean and std, got mean={self.mean} and std={self.std}."
            )
        if self.crop_ratio is not None and not 0 < self.crop_ratio <= 1:
            raise ValueError(f"crop_ratio must lie in (0, 1], got {self.crop_ratio}.")

    @property
    def ops(self) -> str:
        """Preprocessing operations for evaluation, e.g. `decode|resize(224)|value_range(-1,1)`."""
        decode = "decode" if self.channels == 3 else f"decode({self.channels})"
        return "|".join([decode, self._geometry(), self._scaling()])

    def _geometry(self):
        height, width = self.image_size
        # The operations' own defaults, which the data room documents, are left unsaid.
        if self.crop_ratio is None:
            op, default, default_antialias = "resize", "bilinear", False
            arguments = [f"{height}" if height == width else f"{height},{width}"]
        else:
            op, default, default_antialias = "crop_ratio", "bicubic", True
            size = f"{height}" if height == width else f"({height},{width})"
            arguments = [size, repr(self.crop_ratio)]
        if self.interpolation != default:
            arguments.append(f'method="{self.interpolation}"')
        if self.antialias != default_antialias:
            arguments.append(f"antialias={self.antialias}")
        return f"{op}({', '.join(arguments)})"

    def _scaling(self):
        if self.mean is not None:
            return f"standardize({self.mean}, {self.std})"
        low, high = self.value_range
        return f"value_range({low:g},{high:g})"
