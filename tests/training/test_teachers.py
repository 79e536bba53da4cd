"""Teachers: any model in its own terms, and its answers out of a file."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf import planning
from vit_tf.checkpoints import save_checkpoint
from vit_tf.data import Input, Mixing, TFDSSource
from vit_tf.export import export_saved_model
from vit_tf.models import create_model
from vit_tf.training import (
    CachedTeacher,
    Classification,
    Estimator,
    KnowledgeDistillation,
    Optimization,
    RunConfig,
    Teacher,
    TokenDistillation,
    write_answers,
)
from vit_tf.training.state import by_path

SIZES = dict(patch_size=4, width=16, depth=1, num_heads=2, mlp_dim=16)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
make_student = functools.partial(create_model, "vit", image_size=8, num_classes=10, **SIZES)
make_distilled = functools.partial(
    create_model, "deit_distilled", image_size=8, num_classes=10, **SIZES
)


def make_teacher(name="deit", image_size=16, num_classes=10, **settings):
    """A model of random weights throughout, as if somebody had trained it."""
    model = create_model(
        name, image_size=image_size, num_classes=num_classes, **{**SIZES, **settings}
    )
    for number, weight in enumerate(model.weights):
        mean = 1.0 if weight.path.endswith("/gamma") else 0.0
        weight.assign(tf.random.stateless_normal(weight.shape, [number, 1], mean, stddev=0.3))
    return model


@pytest.fixture(scope="module")
def teacher_model():
    return make_teacher()


@pytest.fixture(scope="module")
def student():
    return make_student()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.float32)


@pytest.fixture
def answers(student):
    """`answers(teacher, images)` for images in [-1, 1], as the student's card has them."""

    def of(teacher, images, learner=student):
        teacher.prepare(learner, train_input=None)
        return teacher({"image": tf.constant(images)}).numpy()

    return of


def in_range(pixels):
    return pixels / 127.5 - 1.0


class TestImages:
    def expected(self, model, pixels):
        """TensorFlow's own resizing of bytes, and the card's mean and std."""
        images = tf.image.resize(pixels, model.image_size, antialias=True) / 255.0
        return model((images - MEAN) / STD, training=False).numpy()

    @pytest.mark.parametrize("size", [16, 8, 4])
    def test_are_resized_and_scaled_as_the_teachers_card_has_it(self, answers, pixels, size):
        model = make_teacher(image_size=size)
        got = answers(Teacher(lambda: model), in_range(pixels))
        np.testing.assert_allclose(got, self.expected(model, pixels), rtol=1e-4, atol=1e-4)

    def test_compile(self, answers, teacher_model, pixels):
        teacher = Teacher(lambda: teacher_model)
        expected = answers(teacher, in_range(pixels))
        compiled = tf.function(teacher.__call__, jit_compile=True)
        got = compiled({"image": tf.constant(in_range(pixels), tf.float32)})
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        ("ops", "scaled"),
        [
            ("value_range(0, 1)|random_erasing(0.5)", lambda x: x / 255.0),
            ("standardize", lambda x: (x / 255.0 - MEAN) / STD),
            ("flip_lr", lambda x: x),
        ],
    )
    def test_are_scaled_back_from_what_the_input_does_not_what_the_students_card_says(
        self, digits_dir, student, teacher_model, pixels, ops, scaled
    ):
        source = TFDSSource(digits_dir, "train")
        train_input = Input(source, f"decode|resize(8)|{ops}", batch_size=8, training=True)
        teacher = Teacher(lambda: teacher_model)
        teacher.prepare(student, train_input)
        got = teacher({"image": tf.constant(scaled(pixels), tf.float32)})
        expected = self.expected(teacher_model, pixels)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)

    def test_of_the_same_card_are_passed_on_to_the_bit(self, answers, pixels):
        model = make_teacher("vit", image_size=8)
        got = answers(Teacher(lambda: model), in_range(pixels))
        np.testing.assert_array_equal(got, model(in_range(pixels), training=False))

    def test_are_the_mixed_ones(self, teacher_model, pixels):
        task = KnowledgeDistillation(
            make_student, Teacher(lambda: teacher_model), mixing=Mixing(mixup_alpha=1.0)
        )
        model = task.build_model()
        task.prepare(model, None)
        batch = {"image": in_range(pixels), "label": np.arange(6), "mask": np.ones(6, np.float32)}
        batch = {name: tf.constant(value) for name, value in batch.items()}
        mixed = task.augment(model, batch, tf.constant([1, 2]))
        assert not np.allclose(mixed["image"], batch["image"])
        bytes_again = (mixed["image"].numpy() + 1.0) * 127.5
        expected = self.expected(teacher_model, bytes_again)
        np.testing.assert_allclose(mixed["teacher_logits"], expected, rtol=1e-3, atol=1e-3)

    def test_that_nothing_describes_are_an_error(self, answers, pixels):
        model = keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Flatten()])
        with pytest.raises(ValueError, match=r"set Teacher.preprocessing, for example"):
            answers(Teacher(lambda: model), in_range(pixels))


class TestSources:
    @pytest.mark.parametrize("ending", ["npz", "pth", "safetensors", "keras", "training"])
    def test_any_checkpoint_gives_its_models_answers(
        self, answers, teacher_model, pixels, tmp_path, ending
    ):
        if ending == "training":
            path = tf.train.Checkpoint(model=by_path(teacher_model.weights)).write(
                str(tmp_path / "ckpt-7")
            )
        elif ending == "keras":
            path = str(tmp_path / "teacher.keras")
            teacher_model.save(path)
        else:
            path = str(tmp_path / f"teacher.{ending}")
            save_checkpoint(teacher_model, path)
        make = functools.partial(create_model, "deit", image_size=16, num_classes=10, **SIZES)
        got = answers(Teacher(make, weights=path), in_range(pixels))
        expected = answers(Teacher(lambda: teacher_model), in_range(pixels))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
        if ending == "keras":
            np.testing.assert_allclose(answers(Teacher(path), in_range(pixels)), expected)

    def test_our_saved_model_answers_with_its_own_preprocessing(
        self, answers, teacher_model, pixels, digits_dir, tmp_path
    ):
        ops = "decode|resize(16, antialias=True)|standardize"
        held_out = Input(TFDSSource(digits_dir, "test"), ops, batch_size=100, training=False)
        task = Classification(make_student)
        path = export_saved_model(
            teacher_model,
            functools.partial(task.predict_values, teacher_model),
            held_out,
            [str(n) for n in range(10)],
            str(tmp_path),
        )
        got = answers(Teacher(path), in_range(pixels))
        expected = answers(Teacher(lambda: teacher_model), in_range(pixels))
        np.testing.assert_allclose(got, expected, rtol=1e-2, atol=1e-2)  # rounded to bytes

    @pytest.mark.parametrize("kind", ["keras", "module"])
    def test_other_saved_models_are_called_with_images_as_they_are_told(
        self, answers, teacher_model, pixels, tmp_path, kind
    ):
        path = str(tmp_path / "saved")
        spec = tf.TensorSpec([None, 16, 16, 3])
        if kind == "keras":
            teacher_model.export(path, verbose=False, input_signature=[spec])
        else:
            module = tf.Module()
            module.model = teacher_model
            module.__call__ = tf.function(lambda images: teacher_model(images), [spec])
            tf.saved_model.save(module, path)
        with pytest.raises(ValueError, match=r"set Teacher.preprocessing"):
            answers(Teacher(path), in_range(pixels))
        facts = {"mean": MEAN, "std": STD, "image_size": (16, 16)}
        got = answers(Teacher(path, preprocessing=facts), in_range(pixels))
        expected = answers(Teacher(lambda: teacher_model), in_range(pixels))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)

    def test_any_keras_model_will_do(self, answers, pixels):
        layers = [keras.layers.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
        model = keras.Sequential(layers)
        got = answers(
            Teacher(lambda: model, preprocessing={"value_range": (0, 1)}), in_range(pixels)
        )
        np.testing.assert_allclose(got, model(pixels / 255.0), rtol=1e-4, atol=1e-5)

    def test_a_model_that_ends_in_a_softmax_is_refused(self, answers, pixels):
        dense = keras.layers.Dense(10, activation="softmax")
        model = keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Flatten(), dense])
        with pytest.raises(ValueError, match="ends in a softmax; a teacher gives logits"):
            answers(Teacher(lambda: model, preprocessing={"value_range": (0, 1)}), in_range(pixels))

    def test_fresh_weights_and_fresh_heads_are_refused(self, answers, pixels, tmp_path):
        with pytest.raises(ValueError, match="fresh weights; name their file, Teacher.weights"):
            answers(Teacher(make_student), in_range(pixels))
        path = str(tmp_path / "other.npz")
        save_checkpoint(make_teacher("vit", image_size=8, num_classes=4), path)
        with pytest.raises(ValueError, match="does not fit this model exactly"):
            answers(Teacher(make_student, weights=path), in_range(pixels))
        make = functools.partial(vit_tf_create_model, path)
        with pytest.raises(ValueError, match="not all those of its file"):
            answers(Teacher(make), in_range(pixels))

    def test_a_path_that_is_nothing_says_how_checkpoints_are_named(self, answers, pixels):
        with pytest.raises(FileNotFoundError, match="Teacher.weights = 'B_16.npz'"):
            answers(Teacher("B_16.npz"), in_range(pixels))


def vit_tf_create_model(weights):
    """`vit_tf.create_model`, which leaves a head of other classes fresh."""
    from vit_tf import create_model

    return create_model("vit", weights=weights, image_size=8, num_classes=10, **SIZES)


class TestClasses:
    def test_other_numbers_of_classes_are_an_error_that_names_both(self, answers, pixels):
        model = make_teacher(num_classes=12)
        with pytest.raises(ValueError, match="the teacher has 12 classes and the student 10"):
            answers(Teacher(lambda: model), in_range(pixels))

    @pytest.mark.parametrize("form", ["list", "json list", "json numbers", "json names"])
    def test_are_brought_into_the_students_order(self, student, pixels, tmp_path, form):
        model = make_teacher(num_classes=12)
        order = [11, 3, 5, 0, 1, 2, 4, 6, 7, -1]
        names = [f"class {n}" for n in range(10)]
        classes = order
        if form != "list":
            content = order
            if form != "json list":
                keys = map(str, range(10)) if form == "json numbers" else names
                content = {k: None if n < 0 else n for k, n in zip(keys, order, strict=True)}
            classes = tmp_path / "classes.json"
            classes.write_text(json.dumps(content))

        class Known:  # an input that names its classes
            class_names = names

        teacher = Teacher(lambda: model, classes=classes)
        teacher.prepare(student, Known)
        batch = {"image": tf.constant(in_range(pixels), tf.float32)}
        probabilities = tf.nn.softmax(teacher(batch)).numpy()
        images = tf.image.resize(pixels, (16, 16)) / 255.0
        logits = model((images - MEAN) / STD, training=False).numpy()[:, order[:-1]]
        np.testing.assert_allclose(probabilities[:, :-1], tf.nn.softmax(logits), atol=1e-5)
        np.testing.assert_array_equal(probabilities[:, -1], 0.0)
        assert "probability 0 for 1 that it lacks: 9" in teacher.facts()

    def test_lacking_ones_keep_losses_finite_but_need_labels(self, pixels):
        model = make_teacher(num_classes=12)
        teacher = Teacher(lambda: model, classes=[*range(9), -1])
        task = KnowledgeDistillation(make_student, teacher)
        with pytest.raises(ValueError, match="lacks 1 of the student's classes .the first is 9"):
            task.prepare(task.build_model(), None)
        task = KnowledgeDistillation(make_student, teacher, label_weight=0.5, temperature=4.0)
        student = task.build_model()
        task.prepare(student, None)
        batch = {"image": tf.constant(in_range(pixels), tf.float32), "label": tf.range(6) + 4}
        with tf.GradientTape() as tape:
            values = task.train_values(student, {**batch, "teacher_logits": teacher(batch)})
        gradients = tape.gradient(values["loss"], student.trainable_weights)
        assert all(np.isfinite(value).all() for value in [*values.values(), *gradients])

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            ([0, 1], "has 2 entries and the student 10 classes"),
            ([*range(9), 12], "0 to 11, or -1 for none; it holds 12"),
            ([-1] * 10, "none of the student's classes"),
        ],
    )
    def test_maps_that_do_not_fit_are_refused(self, answers, pixels, classes, message):
        model = make_teacher(num_classes=12)
        with pytest.raises(ValueError, match=message):
            answers(Teacher(lambda: model, classes=classes), in_range(pixels))

    def test_files_that_miss_a_class_are_refused(self, answers, pixels, tmp_path):
        path = tmp_path / "classes.json"
        path.write_text(json.dumps({str(n): n for n in range(9)} | {"dog": 1}))
        model = make_teacher(num_classes=12)
        with pytest.raises(ValueError, match=r"unknown: \['dog'\], missing: \['9'\]"):
            answers(Teacher(lambda: model, classes=path), in_range(pixels))


class TestFacts:
    def test_tell_another_teachers_weights(self, answers, pixels):
        def facts(model):
            teacher = Teacher(lambda: model)
            answers(teacher, in_range(pixels))
            return teacher.facts()

        one, other = make_teacher(), make_teacher()
        assert facts(one) == facts(other)
        assert "at 16x16 (from 8x8, bilinear_antialias), 10 classes, weights " in facts(one)
        other.head.bias.assign(other.head.bias + 1e-6)
        assert facts(one) != facts(other)


@pytest.fixture
def fixed_input(digits_dir):
    """`fixed_input(split="train", ops=...)`: training images that are the same in every epoch."""

    def make(split="train", ops="decode|resize(8)|value_range(-1, 1)", training=True):
        return Input(TFDSSource(digits_dir, split), ops, batch_size=50, training=training)

    return make


class TestCached:
    @pytest.fixture(scope="class")
    @staticmethod
    def path(tmp_path_factory, digits_dir, student, teacher_model):
        ops = "decode|resize(8)|value_range(-1, 1)"
        every = Input(TFDSSource(digits_dir, "train"), ops, batch_size=100, training=False)
        path = str(tmp_path_factory.mktemp("answers") / "digits.npy")
        return write_answers(Teacher(lambda: teacher_model), student, every, path)

    def test_answers_are_the_teachers_to_half_precision(
        self, path, student, teacher_model, fixed_input
    ):
        cached, teacher = CachedTeacher(path), Teacher(lambda: teacher_model)
        for one in (cached, teacher):
            one.prepare(student, fixed_input())
        batch = next(iter(fixed_input()()))
        assert (np.diff(batch["index"]) != 1).any()
        expected = teacher(batch)
        np.testing.assert_allclose(cached(batch), expected, rtol=2e-3, atol=1e-3)
        compiled = tf.function(cached.__call__, jit_compile=True)
        np.testing.assert_array_equal(compiled({"index": batch["index"]}), cached(batch))
        assert teacher.facts() in cached.facts()
        padding = cached({"index": tf.constant([-1, 3], tf.int64)})
        assert np.isfinite(padding).all()

    def test_header_tells_what_they_are(self, path):
        with open(path.replace(".npy", ".json"), encoding="utf-8") as file:
            header = json.load(file)
        assert header["examples"] == 1437 and header["classes"] == 10
        assert header["preprocess"] == "decode|resize(8)|value_range(-1, 1)"
        assert "train" in header["split"] and "weights" in header["teacher"]
        assert np.load(path).dtype == np.float16

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"split": "test", "training": False}, "are for split 'digits.* train'"),
            ({"split": "train[:50%]"}, "write them again for this input"),
            ({"ops": "decode|resize(8)|flip_lr|value_range(-1, 1)"}, "flip_lr in .* is random"),
            ({"ops": "decode|resize(8)|value_range(0, 1)"}, "are for preprocess 'decode"),
        ],
    )
    def test_other_inputs_are_refused(self, path, student, fixed_input, settings, message):
        with pytest.raises(ValueError, match=message):
            CachedTeacher(path).prepare(student, fixed_input(**settings))

    def test_other_classes_and_mixing_are_refused(self, path, fixed_input):
        of_four = create_model("vit", image_size=8, num_classes=4, **SIZES)
        with pytest.raises(ValueError, match="are for classes 10, the training input has 4"):
            CachedTeacher(path).prepare(of_four, fixed_input())
        with pytest.raises(ValueError, match="cached answers are not for them; leave out Mixing"):
            KnowledgeDistillation(make_student, CachedTeacher(path), mixing=Mixing(mixup_alpha=1.0))

    def test_a_file_that_is_not_there_is_named(self):
        with pytest.raises(FileNotFoundError, match=r"no file none\.npy; .*write_answers"):
            CachedTeacher("none.npy")


class TestPlans:
    """A dry run names files and loads none."""

    def test_note_a_teachers_file(self, student, tmp_path):
        path = str(tmp_path / "absent.npz")
        make = functools.partial(make_teacher, num_classes=12)
        with planning.planning() as files, tf.Graph().as_default():
            Teacher(make, weights=path, classes=range(10)).prepare(student, None)
            with pytest.raises(ValueError, match="the teacher has 12 classes and the student 10"):
                Teacher(make, weights=path).prepare(student, None)
            CachedTeacher(str(tmp_path / "answers.npy")).prepare(student, None)
        assert [file.role for file in files] == ["teacher", "teacher"]
        assert "absent.npz is not there" in files[0].problem
        assert "write_answers" in files[1].problem


class TestRuns:
    """Whole training runs with a teacher."""

    @pytest.mark.slow
    def test_two_devices_equal_one(self, train_input, tmp_path):
        def trained(strategy):
            task = TokenDistillation(make_distilled, Teacher(make_teacher))
            config = RunConfig(
                strategy=strategy,
                steps=4,
                eval_interval=4,
                jit_compile=True,
                optimization=Optimization(keras.optimizers.SGD),
            )
            estimator = Estimator(task, tmp_path / strategy, config)
            values = estimator.train(train_input)
            return values, estimator.model.get_weights()

        (alone, weights), (both, weights_of_two) = trained("cpu"), trained("mirrored")
        for name in ("loss", "distillation_loss", "label_loss", "teacher_agreement"):
            assert alone[name] == pytest.approx(both[name], rel=1e-4)
        for one, other in zip(weights, weights_of_two, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

    def test_the_teacher_is_in_no_checkpoint_and_stays_as_it_is(
        self, teacher_model, train_input, tmp_path, capsys
    ):
        before = [weight.copy() for weight in teacher_model.get_weights()]
        teacher = Teacher(lambda: teacher_model)
        task = KnowledgeDistillation(make_student, teacher)
        estimator = Estimator(task, tmp_path, RunConfig(strategy="cpu", steps=2))
        estimator.train(train_input)
        for old, new in zip(before, teacher_model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        reader = tf.train.load_checkpoint(str(tmp_path / "checkpoints"))
        kept = [name for name in reader.get_variable_to_shape_map() if name.startswith("model/")]
        assert len(kept) == len(estimator.model.weights)
        assert f"teacher    {teacher.facts()}" in capsys.readouterr().out

    def test_going_on_with_another_teacher_is_an_error(self, train_input, tmp_path):
        def run(teacher, steps, **settings):
            task = KnowledgeDistillation(make_student, Teacher(lambda: teacher))
            config = RunConfig(strategy="cpu", steps=2, steps_per_loop=1)
            return Estimator(task, tmp_path, config, **settings).train(train_input, steps)

        first, other = make_teacher(), make_teacher()
        other.head.bias.assign(other.head.bias + 1e-6)
        run(first, 1)
        with pytest.raises(ValueError, match=r"the teacher is not the one .*allow_config_change"):
            run(other, 2)
        assert run(other, 2, allow_config_change=True)

    def test_evaluation_does_without_the_teacher(self, train_input, eval_input, tmp_path):
        task = KnowledgeDistillation(make_student, Teacher(make_teacher))
        config = RunConfig(strategy="cpu", steps=1)
        Estimator(task, tmp_path, config).train(train_input)
        gone = KnowledgeDistillation(make_student, Teacher("gone.keras"))
        assert Estimator(gone, tmp_path, config).evaluate(eval_input)["examples"] == 360
