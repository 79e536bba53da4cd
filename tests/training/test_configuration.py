"""gin: names that do not exist are errors that name the closest, and nothing unused is silent."""

import gin
import pytest

from vit_tf.training import configuration
from vit_tf.training.run import run
from vit_tf.training.run_length import RunLength

QUICKSTART = ["gin/quickstart.gin"]
# Small ones, which fit anywhere; tests/recipes dry-runs all of them.
SMALL = ["gin/quickstart.gin", "gin/recipes/cifar10.gin", "gin/recipes/photos.gin"]


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.mark.parametrize(
    "binding, message",
    [
        (
            "RunConfg.steps = 1",
            r"No configurable matching 'RunConfg'[\s\S]*Did you mean 'RunConfig",
        ),
        ("RunConfig.step = 1", r"doesn't have a parameter named 'step'[\s\S]*Did you mean 'steps"),
        ("run.task = @Clasification", r"'@Clasification'[\s\S]*Did you mean 'Classification"),
        ("cosine.warmpu = 1", r"named 'warmpu'[\s\S]*Did you mean 'warmup"),
        ("RunConfig.steps 3", r"Couldn't parse statement"),
    ],
)
def test_names_that_do_not_exist(binding, message):
    with pytest.raises(ValueError, match=message):
        configuration.parse(QUICKSTART, [binding])


@pytest.mark.parametrize("file", SMALL)
def test_every_small_file_can_be_read_and_makes_its_model_and_optimizer(file):
    configuration.parse([file])
    model = configuration.bound("create_model")()
    config = configuration.bound("RunConfig")()
    optimizer = config.optimization.build(model, RunLength(1200, 128, 50_000))
    assert optimizer.weight_decay == 0.05


def test_a_file_that_is_not_there_answers_with_those_that_are():
    with pytest.raises(FileNotFoundError, match=r"no gin file 'gin/quickstrt.gin'; .*quickstart"):
        configuration.parse(["gin/quickstrt.gin"])


def test_a_misspelt_model_and_op_are_errors_with_suggestions():
    configuration.parse([], ["create_model.name = 'vit_b61'"])
    with pytest.raises(ValueError, match="vit_b16"):
        configuration.bound("create_model")()
    configuration.parse([], ["create_model.name = 'vit'", "create_model.depht = 3"])
    with pytest.raises(TypeError, match="depth"):
        configuration.bound("create_model")()


def test_a_misspelt_optimizer_argument_is_an_error():
    configuration.parse([], ["AdamW.weight_decy = 1.0"])
    with pytest.raises(ValueError, match="weight_decy"):
        configuration.bound("AdamW")()


def test_the_command_line_wins_over_the_file():
    configuration.parse(QUICKSTART, ["RunConfig.steps = 7"])
    assert configuration.bound("RunConfig")().steps == 7


@pytest.mark.parametrize(
    "binding, message",
    [
        ("DATA_DRI = '/nope'", r"nothing refers to the macro DATA_DRI[\s\S]*mean 'DATA_DIR'\?"),
        (
            "trian/Input.batch_size = 7",
            r"scope 'trian' of trian/Input\.batch_size[\s\S]*mean 'train'",
        ),
        ("eval/TFDSSource.split = %DATA_DRI", r"macro %DATA_DRI is not set[\s\S]*mean 'DATA_DIR'"),
        ("tr/TFDSSource.split = 'x'", r"\(as @tr/TFDSSource\)[\s\S]*Known names: eval, train"),
    ],
)
def test_macros_and_scopes_that_are_misspelt(binding, message):
    with pytest.raises(ValueError, match=message):
        configuration.parse(QUICKSTART, [binding])


def test_a_macro_may_be_replaced_on_the_command_line_wherever_it_is_used():
    configuration.parse(
        QUICKSTART, ["train/TFDSSource.data_dir = 'x'", "eval/TFDSSource.data_dir = 'y'"]
    )
    configuration.parse(QUICKSTART, ["run.eval_input = None"])


def test_a_percent_sign_in_a_string_is_no_macro():
    configuration.parse(QUICKSTART, ["create_model.name = 'it\\'s %d of %s'"])


def test_references_of_included_files_count_and_comments_do_not(tmp_path):
    base, recipe = tmp_path / "base.gin", tmp_path / "recipe.gin"
    base.write_text("RunConfig.steps = %STEPS\n# run.train_input = @old/Input\n")
    recipe.write_text(f"include '{base}'\nSTEPS = 3\n")
    configuration.parse([str(recipe)])
    assert configuration.bound("RunConfig")().steps == 3
    with pytest.raises(ValueError, match="nothing refers to the scope 'old'"):
        configuration.parse([str(recipe)], ["old/Input.batch_size = 3"])


def test_bindings_that_nothing_asked_for_are_listed():
    configuration.parse([], ["cosine.final = 0.1", "SGD.momentum = 0.9"])
    configuration.bound("cosine")(RunLength(10))
    assert configuration.unused_bindings() == ["SGD.momentum"]


def test_what_the_code_decides_is_listed():
    configuration.parse([], ["AdamW.learning_rate = 1.0", "Optimization.optimizer = @AdamW"])
    configuration.bound("AdamW")(learning_rate=0.1)
    assert "AdamW.learning_rate" in configuration.unused_bindings()


def make(scope, *names):
    with gin.config_scope(scope):
        for name in names:
            configuration.bound(name)(RunLength(10))


SCHEDULES = [
    "Optimization.schedule = @train/cosine",
    "Optimization.optimizer = @eval/cosine",
    "train/cosine.final = 0.1",
    "eval/cosine.final = 0.2",
]


def test_what_a_mode_does_not_make_is_not_listed():
    configuration.parse([], SCHEDULES)
    configuration.bound("Optimization")()
    make("train", "cosine")
    assert configuration.unused_bindings() == []


def test_a_binding_that_every_scope_overrules_is_listed():
    configuration.parse([], [*SCHEDULES, "cosine.final = 0.3"])
    configuration.bound("Optimization")()
    make("train", "cosine")
    assert configuration.unused_bindings() == []  # the other scope may still use it
    make("eval", "cosine")
    assert configuration.unused_bindings() == ["cosine.final"]


def test_what_another_part_replaced_is_not_listed():
    configuration.parse(QUICKSTART, ["Optimization.optimizer = @SGD", "SGD.momentum = 0.9"])
    configuration.bound("RunConfig")()
    configuration.bound("SGD")(learning_rate=0.1)
    assert configuration.unused_bindings() == []


def test_the_operative_text_can_be_read_again():
    configuration.parse([], ["cosine.final = 0.5", "cosine.warmup = 3"])
    schedule = configuration.bound("cosine")(RunLength(10))
    text = configuration.operative_text()
    gin.clear_config()
    gin.parse_config(text)
    again = configuration.bound("cosine")(RunLength(10))
    assert [float(schedule(s)) for s in range(11)] == [float(again(s)) for s in range(11)]


def test_a_run_without_a_task_or_an_input_says_what_to_bind(tmp_path):
    with pytest.raises(ValueError, match=r"names no task, e\.g\. run\.task = @Classification"):
        run(mode="train", model_dir=str(tmp_path))
    configuration.parse(
        [],
        [
            "run.task = @Classification",
            "Classification.model = @create_model",
            "RunConfig.strategy = 'cpu'",
        ],
    )
    with pytest.raises(ValueError, match="mode 'eval' needs run.eval_input, e.g. run.eval_input"):
        run(mode="eval", model_dir=str(tmp_path))
    with pytest.raises(ValueError, match="mode must be one of train, eval"):
        run(mode="test", model_dir=str(tmp_path))


def test_code_that_does_not_use_gin_is_not_touched_by_it():
    from vit_tf.training import RunConfig

    configuration.parse([], ["RunConfig.steps = 7"])
    assert RunConfig().steps is None
