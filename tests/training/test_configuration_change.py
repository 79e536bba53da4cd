"""Which differences between two configurations are changes of a run."""

import pytest

from vit_tf.training.configuration_change import changes

OLD = """
# Macros:
DATA_DIR = '/data/digits'

AdamW.weight_decay = 0.05
RunConfig.optimization = @Optimization()
RunConfig.steps = 60
RunConfig.strategy = 'cpu'
create_model.width = 64
train/Input.batch_size = 128
train/Input.preprocess = \\
    'decode|random_crop(8, padding=1)|value_range(-1, 1)'
train/TFDSSource.data_dir = %DATA_DIR
"""


def test_the_same_text_in_another_order_is_no_change():
    lines = OLD.replace("\\\n", "").splitlines()
    assert changes(OLD, OLD) == []
    assert changes(OLD, "\n".join(reversed(lines))) == []


@pytest.mark.parametrize(
    "old, new, line",
    [
        ("weight_decay = 0.05", "weight_decay = 0.1", "-AdamW.weight_decay = 0.05"),
        ("steps = 60", "steps = 400", "+RunConfig.steps = 400"),
        ("@Optimization()", "@other/Optimization()", "+RunConfig.optimization = @other/Optimi"),
        ("padding=1", "padding=2", "-train/Input.preprocess = 'decode|random_crop(8, padding=1)"),
        ("'/data/digits'", "'/data/faces'", "+train/TFDSSource.data_dir = '/data/faces'"),
        ("create_model.width = 64", "create_model.width = 64.0", "+create_model.width = 64.0"),
        # A model's free settings have no default that could be known.
        (
            "create_model.width = 64\n",
            "create_model.width = 64\ncreate_model.dropout = 0.0\n",
            "+create_model.dropout = 0.0",
        ),
    ],
)
def test_another_value_is_a_change(old, new, line):
    (change,) = changes(OLD, OLD.replace(old, new))
    assert line in str(change)
    assert not change.free
    (back,) = changes(OLD.replace(old, new), OLD)
    assert (back.before, back.now) == (change.now, change.before)


def test_a_macro_is_its_value():
    assert changes(OLD, OLD.replace("%DATA_DIR", "'/data/digits'")) == []
    renamed = OLD.replace("DATA_DIR", "PLACE")
    assert changes(OLD, renamed) == []


def test_parts_that_only_one_mode_makes_are_no_change():
    more = OLD + "eval/Input.batch_size = 120\neval/Input.training = False\n"
    assert changes(OLD, more) == changes(more, OLD) == []


def test_a_parameter_that_is_new_in_the_library_is_a_change_unless_it_has_its_default():
    assert changes(OLD, OLD + "RunConfig.keep_every = None\nRunConfig.jit_compile = False\n") == []
    (change,) = changes(OLD, OLD + "RunConfig.jit_compile = True\n")
    assert str(change) == "-RunConfig.jit_compile = False\n+RunConfig.jit_compile = True"


def test_where_it_runs_is_free():
    (change,) = changes(OLD, OLD.replace("'cpu'", "'tpu'"))
    assert change.free
    assert str(change) == "-RunConfig.strategy = 'cpu'\n+RunConfig.strategy = 'tpu'"


def test_a_text_that_is_none_of_gins_is_shown():
    with pytest.raises(ValueError, match="gin cannot read this configuration(.|\n)*{bad"):
        changes("{bad", OLD)
