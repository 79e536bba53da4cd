"""The model card tells users what they need."""

from vit_tf.models import create_model


def test_the_card_tells_what_the_model_expects_and_gives():
    card = create_model("deit_ti16", num_classes=10, image_size=384, depth=1).card
    assert (card.model, card.num_classes) == ("deit_ti16", 10)
    assert card.preprocessing.image_size == (384, 384)
    text = str(card)
    assert "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)" in text
    assert "bicubic, antialiased, crop ratio 0.875" in text
    assert "freshly initialised" in text


def test_moving_averages_are_no_parameters():
    model = create_model("vit_c_1gf", num_classes=10, depth=1)
    trainable = sum(weight.value.shape.num_elements() for weight in model.trainable_weights)
    assert model.card.parameters == trainable < model.count_params()
