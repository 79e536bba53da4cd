"""Bindings that make a shipped gin file small enough to train in a test, and no more than that."""

import re

import gin

CLASSES = 4
STEPS = 4
# What images of so many pixels are shrunken to, crops and the sides before them.
SIZES = {"32": 32, "154": 32, "160": 34, "192": 32, "224": 32, "256": 36}
SIZES |= {"240": 48, "272": 54, "384": 48, "448": 56}
TRANSFORMER = {
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 32,
    "patch_size": 16,
}
MIXER = {
    "width": 16,
    "depth": 2,
    "tokens_mlp_dim": 8,
    "channels_mlp_dim": 16,
    "patch_size": 16,
}
# Numbers of three digits that are levels of a colour and no sizes.
LEVELS = {"125", "123", "114", "129", "124", "112", "111"}
COMPACT = {key: value for key, value in TRANSFORMER.items() if key != "patch_size"}
DYNAMIC = {**TRANSFORMER, "pruning_blocks": (1,), "keep_ratios": (0.5,)}
CVT = {"width": (8, 16), "depth": (1, 2), "num_heads": (1, 2)}
LEVIT = {"width": (16, 24), "depth": (1, 1), "num_heads": (2, 3), "key_dim": 4}
CMT = {**CVT, "mlp_dim": 16, "key_value_reduction": (2, 1)}
RESNET = {"resnet_stages": (1, 1), "resnet_width_factor": 0.5}
FLEXI = {**TRANSFORMER, "position_grid_size": (3, 3), "default_patch_size": 16}


def shrunken_sizes(preprocess: str) -> str:
    return re.sub(r"(?<![.\d])\d{3}\b", _shrunken_size, preprocess)


def _shrunken_size(number: re.Match) -> str:
    is_level = number.group() in LEVELS
    return number.group() if is_level else str(SIZES[number.group()])


def bound(name):
    """What a file binds; None if nothing."""
    try:
        return gin.query_parameter(name)
    except ValueError:
        return None


def shrinking(name, model, data_dir, weights):
    """Bindings that make the recipe which was parsed small, and change nothing else."""
    preprocess = {side: bound(f"{side}/Input.preprocess") for side in ("train", "eval")}
    scope = "student/" if bound("student/create_model.name") else ""
    student = dict(model)
    macro, size = bound("%IMAGE_SIZE"), bound(f"{scope}create_model.image_size")
    small = name.split("/")[1].startswith(("cifar10", "fashion", "photos"))
    if not small and macro is None:
        given = str(size or re.search(r"crop\((\d+)", preprocess["train"]).group(1))
        student.setdefault("image_size", SIZES[given])
    if bound(f"{scope}create_model.representation_size"):
        student["representation_size"] = 16
    lines = [f"{scope}create_model.{key} = {value!r}" for key, value in student.items()]
    if isinstance(macro, int):
        lines.append(f"IMAGE_SIZE = {SIZES[str(macro)]}")
    lines += [f"DATA_DIR = {data_dir!r}", f"NUM_CLASSES = {CLASSES}"]
    lines += [
        f"{side}/TFDSSource.split = {split!r}"
        for side, split in (("train", "train"), ("eval", "test"))
    ]
    for side, text in preprocess.items():
        lines.append(f"{side}/TFDSSource.expected_examples = None")
        lines.append(f"{side}/Input.batch_size = 8")
        if not small and macro is None:
            lines.append(f"{side}/Input.preprocess = {shrunken_sizes(text)!r}")
    lines += [
        "RunConfig.epochs = None",
        f"RunConfig.steps = {STEPS}",
        f"RunConfig.eval_interval = {STEPS}",
        f"RunConfig.checkpoint_interval = {STEPS}",
        f"RunConfig.steps_per_loop = {STEPS}",
        "RunConfig.jit_compile = False",
        "RunConfig.strategy = 'cpu'",
    ]
    if bound("RunConfig.accumulation_steps"):
        lines.append("RunConfig.accumulation_steps = 2")
    schedule = bound("Optimization.schedule").selector.rpartition(".")[2]
    for part in ("warmup", "cooldown", "timescale"):
        if bound(f"{schedule}.{part}") is not None:
            lines.append(f"{schedule}.{part} = {2 if part == 'timescale' else 1}")
    if bound("%BACKBONE_WAITS") is not None:
        lines.append("BACKBONE_WAITS = 2")
    lines += shrunken_weights(name, student, scope, weights)
    return lines


def shrunken_weights(name, student, scope, weights):
    """Bindings of small files in place of the published ones."""
    lines = []
    if bound("TokenPruning.teacher") is not None:  # it is the student, and drops no tokens
        config = {key: student[key] for key in (*TRANSFORMER, "image_size")}
        lines = [f"teacher/create_model.{key} = {value!r}" for key, value in config.items()]
        return [*lines, f"WEIGHTS = {weights('deit_s16', **config)!r}"]
    if bound("Teacher.model") is not None:
        lines += [f"teacher/create_model.{key} = {value!r}" for key, value in RESNET.items()]
        config = {"image_size": 32, **RESNET}
        if "flexi" in name:
            return [f"{key} = {value!r}" for key, value in flexi_weights(weights).items()]
        small = bound("Teacher.weights") is not None
        if small:
            config["image_size"] = bound("teacher/create_model.image_size")
            config["channels"] = bound("create_model.channels") or 3
            lines.append(f"TEACHER = {weights('bit', **config)!r}")
        else:
            lines.append("teacher/create_model.image_size = 32")
            lines.append(f"teacher/create_model.weights = {weights('bit', **config)!r}")
    if bound(f"{scope}create_model.weights") is not None:
        config = {**student, "image_size": 32}  # so that positions are resized
        config.pop("representation_size", None)
        lines.append(f"WEIGHTS = {weights(bound(f'{scope}create_model.name'), **config)!r}")
    return lines


def flexi_weights(weights):
    config = {**TRANSFORMER, "image_size": 48, "position_includes_class_token": False}
    teacher = {f"teacher/create_model.{key}": value for key, value in config.items()}
    sizes = {"FlexiClassification.patch_sizes": (24, 16)}
    return {"WEIGHTS": weights("vit_b16", **config), **teacher, **sizes}
