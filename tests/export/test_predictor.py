"""What every predictor makes of a signature's outputs."""

import io

import numpy as np
import pytest
from PIL import Image

from vit_tf.export.predictors import Prediction, Predictor

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Fake(Predictor):
    """Reads PNG files of one size; its model sees them as ImageNet's mean and deviation say."""

    def outputs(self, signature, images):
        read = [image.startswith(b"\x89PNG") for image in images]
        count = len(images)
        error = np.array([b"" if fine else b"no image" for fine in read], object)
        if signature == "preprocess":
            pixels = [np.asarray(Image.open(io.BytesIO(i)).convert("RGB")) for i in images]
            return {"images": (np.stack(pixels) / 255 - MEAN) / STD, "error": error}
        if signature == "serving_default":
            return {
                "top_ids": np.tile([2, 0], (count, 1)),
                "top_names": np.array([[b"c\xc3\xa4", b"a"]] * count, object),
                "top_probabilities": np.tile(np.float32([0.75, 0.25]), (count, 1)),
                "error": error,
            }
        return {"maps": np.zeros([count, 1]), "error": error}

    def describe(self):
        return "a fake"


def test_classes_are_named_and_a_bad_image_has_an_error_of_its_own():
    good = png(np.zeros([4, 4, 3], np.uint8))
    assert Fake().classify([good, b"text", good]) == [
        Prediction((2, 0), ("cä", "a"), (0.75, 0.25)),
        Prediction(error="no image"),
        Prediction((2, 0), ("cä", "a"), (0.75, 0.25)),
    ]


def test_no_images_ask_nothing():
    assert Fake().classify([]) == Fake().attention([]) == Fake().seen([]) == []


def test_what_the_model_saw_becomes_pixels_again_whatever_its_value_range():
    pixels = np.random.default_rng(0).integers(0, 256, [64, 64, 3], np.uint8)
    [seen] = Fake().seen([png(pixels)])
    np.testing.assert_array_equal(seen, pixels)


def test_an_output_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="'attention' of a fake gives no 'rollout', only error, m"):
        Fake().attention([b"text"])
