"""What pages show is true: commands can be given, blocks run, files that are named are there."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import blocks as pages
import command_lines
import gin
import numpy as np
import pytest
import tensorflow as tf
import tools_in_process
from absl.flags import FLAGS

import vit_tf
from vit_tf.checkpoints.public.addresses import cache_path
from vit_tf.checkpoints.public.catalogue import find
from vit_tf.data import op_registry
from vit_tf.data.image_files import list_image_folder
from vit_tf.data.shards import write_dataset
from vit_tf.models import registry
from vit_tf.training import RunConfig, configuration

ROOT = Path(__file__).resolve().parents[2]
SITE = sorted((ROOT / "docs").rglob("*.md"))
OF_COPY = ROOT / "CONTRIBUTING.md"  # whose files and commands test_contributing.py tries in a copy
ALL = [*SITE, ROOT / "README.md", ROOT / "benchmarks" / "README.md", OF_COPY]
TOOLS = sorted((ROOT / "tools").glob("*.py"))
HEADERS = sorted((ROOT / "gin").rglob("*.gin"))


def shown_text(file):
    """What a page, the docstring of a tool or the header of a gin file says."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    return re.sub(r"^# ?", "", text, flags=re.MULTILINE) if file.suffix == ".gin" else text


CALLS = {
    " ".join(call): (file, call)
    for file in (*ALL, *TOOLS, *HEADERS)
    if file != OF_COPY
    for call in command_lines.shown(shown_text(file))
}
PLANNED = {
    text: (file, call)
    for text, (file, call) in CALLS.items()
    if file.suffix == ".md"
    and text.startswith("tools/train.py")
    and "gin_file" in text
    and "PLACEHOLDER" not in text
}
RUN = [page for page in SITE if any(block.verb == "run" for block in pages.blocks(page))]
QUICK = ("index.md", "checkpoints.md", "extending.md")  # the others trace graphs, which takes time
FILES_MISSING = 2  # exit status of a dry run


def name(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Class folders of photographs, and shards of them."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for label in ("daisy", "tulip"):
            for number in range(count):
                path = folder / "photos" / split / label / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 256, (80, 96, 3), np.uint8)
                path.write_bytes(tf.io.encode_jpeg(pixels).numpy())
    collection = list_image_folder(folder / "photos")
    write_dataset(collection, folder / "data", "photos", num_shards=1, progress=False)
    return folder


@pytest.fixture
def workplace(tmp_path, photos, monkeypatch):
    """A folder as a reader has it: the project's, with photographs; what is registered is lost."""
    for folder in ("gin", "tools"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "photos").symlink_to(photos / "photos")
    (tmp_path / "photo.jpg").symlink_to(photos / "photos" / "test" / "daisy" / "0.jpg")
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    monkeypatch.setattr(op_registry, "_OPS", dict(op_registry._OPS))
    yield tmp_path
    gin.clear_config()


def write_files(page):
    """Writes the files that a page shows, beside the project's and not among them."""
    for block in pages.blocks(page):
        if block.verb == "file":
            assert "/" not in block.subject
            Path(block.subject).write_text(block.text)


def execute(page):
    """Runs the blocks of a page that say so, in order, as one session."""
    namespace = {"__name__": page.stem}
    write_files(page)
    for block in pages.blocks(page):
        if block.verb == "run" and block.language == "python":
            code = "\n" * (block.line - 1) + block.text
            exec(compile(code, str(page), "exec"), namespace)
        elif block.verb == "run":
            for _, tool, *arguments in command_lines.lines(block.text):
                status = tools_in_process.run(ROOT / tool, arguments)
                dry = "--dry_run" in arguments
                assert status == 0 or (dry and status == FILES_MISSING), (page, arguments)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page.name in QUICK else pytest.mark.slow, id=name(page))
        for page in RUN
    ],
)
def test_blocks_run_as_they_stand(page, workplace, photos, capsys):
    if page.name != "index.md":  # which shows how the shards are written
        (workplace / "data" / "photos").symlink_to(photos / "data" / "photos")
    execute(page)
    assert "error" not in capsys.readouterr().err


def shorter(**length):
    """The configuration of a run, of two steps whatever is asked for."""
    return RunConfig(**{**length, "epochs": None, "steps": 2})


def shallower(name, create=vit_tf.create_model, **settings):
    """The model of a name; the one that the README trains has two blocks."""
    return create(name, **{**settings, **({"depth": 2} if name == "vit_ti16" else {})})


@pytest.fixture
def files(workplace, monkeypatch):
    """The files that the README's Python names: public ones in the cache, and its own."""
    monkeypatch.setenv("VIT_TF_CACHE", str(workplace / "cache"))
    download = importlib.import_module("vit_tf.checkpoints.public.download")
    monkeypatch.setattr(download, "check_file", lambda *_: None)  # DeiT's files have checksums
    sizes = {("vit_b16", "augreg_in21k"): 21843, ("deit_s16_distilled", "fb_in1k"): 1000}
    for (model, tag), classes in sizes.items():
        kept = cache_path(find(model, tag).url)
        kept.parent.mkdir(parents=True)
        vit_tf.save_checkpoint(vit_tf.create_model(model, num_classes=classes), str(kept))
        if model == "vit_b16":
            (workplace / "vit_b16.npz").symlink_to(kept)
    tiny = {"patch_size": 8, "width": 64, "depth": 1, "num_heads": 1, "mlp_dim": 64}
    vit_tf.save_checkpoint(vit_tf.create_model("vit", image_size=32, **tiny), "some.npz")


@pytest.mark.slow
def test_python_of_the_readme_runs(files, photos, workplace, monkeypatch, capsys):
    (workplace / "data" / "photos").symlink_to(photos / "data" / "photos")
    monkeypatch.setattr(vit_tf, "RunConfig", shorter)
    monkeypatch.setattr(vit_tf, "create_model", shallower)
    given = {"vit_tf": vit_tf, "images": np.zeros((2, 64, 96, 3), np.float32)}
    page = ROOT / "README.md"
    for block in pages.blocks(page):
        if block.language == "python":
            session = dict(given)
            code = "\n" * (block.line - 1) + block.text
            exec(compile(code, str(page), "exec"), session)
            given.setdefault("model", session["model"])  # the first is the one that is looked at
    shown = next(b.text for b in pages.blocks(page) if b.text.startswith("vit_b16.npz ("))
    assert shown in capsys.readouterr().out
    assert Path("small.safetensors").exists() and Path("distance.png").exists()
    assert list(Path("runs/photos/export").iterdir())


@pytest.mark.parametrize("file, call", CALLS.values(), ids=CALLS)
def test_tool_flags_and_gin_names_of_each_command_exist(file, call, workplace):
    if file.suffix == ".md":
        write_files(file)
    command_lines.check_call(*call)


@pytest.mark.slow
@pytest.mark.parametrize("file, call", PLANNED.values(), ids=PLANNED)
def test_a_training_that_is_shown_can_be_planned(file, call, workplace, capsys):
    write_files(file)
    arguments = [word.replace("gs://", "") for word in call[1:]]  # no network
    status = tools_in_process.run(ROOT / call[0], [*arguments, "--dry_run"])
    assert status in (0, FILES_MISSING), capsys.readouterr().err


@pytest.mark.parametrize("page", [page for page in SITE if page.name != "scaling.md"], ids=name)
def test_each_line_of_a_shell_block_is_a_command_of_this_project(page, workplace):
    for block in pages.blocks(page):
        assert block.language in ("bash", "gin", "python", "text", ""), (page, block.line)
        if block.language in ("bash", ""):
            for words in command_lines.lines(block.text):
                program = Path(words[0]).name
                assert program in command_lines.PROGRAMS, (page, block.line, words)
                if program != "python":  # those are checked above
                    command_lines.check(words)


@pytest.mark.parametrize("page", SITE, ids=name)
def test_python_and_gin_blocks_say_how_they_are_tested(page):
    for block in pages.blocks(page):
        if block.language == "python":
            assert block.verb == "run", (page, block.line)
        if block.language == "gin":
            assert block.verb in ("after", "file"), (page, block.line)


@pytest.mark.parametrize(
    "file, block",
    [
        pytest.param(block.subject, block, id=f"{name(page)}:{block.line}")
        for page in SITE
        for block in pages.blocks(page)
        if block.verb == "after"
    ],
)
def test_gin_that_is_shown_can_be_given_after_its_file(file, block, tmp_path):
    given = tmp_path / "shown.gin"
    given.write_text(block.text)
    try:
        configuration.parse([file, str(given)])
        assert configuration.bound_value("run.task") is not None
    finally:
        gin.clear_config()


@pytest.mark.parametrize("page", ALL, ids=name)
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"\b((?:gin|tools|tests|vit_tf|benchmarks)/[\w/]+\.(?:py|gin))\b", text)
    written = {block.subject for block in pages.blocks(page) if block.verb == "file"}
    assert [path for path in named if path not in written and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", ALL, ids=name)
def test_targets_and_extras_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"(?:`|^ {4}|^)((?:make [a-z][\w-]+)|pip install -e '[^']+')", text, re.M)
    for line in shown:
        (words,) = command_lines.lines(line)
        command_lines.check(words)


@pytest.mark.parametrize("page", ALL, ids=name)
def test_gin_parameters_that_are_named_exist(page):
    known = configuration.configurables()
    for part, parameter in re.findall(r"\b([A-Za-z]\w+)\.([a-z]\w+)\b", page.read_text("utf-8")):
        if part in known and parameter not in ("gin", "npz", "pth", "py"):  # a file: run.py
            parameters = configuration.parameters(part)
            takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            assert parameter in parameters or takes_more, f"{part}.{parameter}"


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(node, id=f"{name(page)}: {ast.unparse(node.func)}")
        for page in ALL
        for block in pages.blocks(page)
        if block.language == "python" and block.verb != "file"
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("vit_tf.")
    ],
)
def test_calls_that_are_shown_fit_the_signature(call):
    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
    signature = inspect.signature(getattr(vit_tf, call.func.attr))
    if len(keywords) < len(call.keywords):  # **settings
        signature.bind_partial(*call.args, **keywords)
    else:
        signature.bind(*call.args, **keywords)


def test_a_tool_leaves_the_flags_of_others_as_they_were():
    before = set(FLAGS)
    with tools_in_process.loaded(ROOT / "tools" / "train.py") as train:
        tools_in_process.parsed(train, ["--model_dir=mine"])
        with tools_in_process.loaded(ROOT / "tools" / "predict.py") as predict:
            assert tools_in_process.parsed(predict, ["--top_k=7"])["model_dir"] is None
        assert FLAGS.model_dir == "mine"
        assert "top_k" not in FLAGS
    assert set(FLAGS) == before


def test_a_wrong_command_is_found(workplace):
    with pytest.raises(AssertionError, match="no tools/trian"):
        command_lines.check_call("tools/trian.py")
    with pytest.raises(Exception, match="Unknown command line flag 'modeldir'"):
        command_lines.check_call("tools/train.py", "--modeldir=x")
    with pytest.raises(ValueError, match="Did you mean 'cosine"):
        command_lines.check_call(
            "tools/train.py", "--gin_file=gin/quickstart.gin", "--gin_param=cosin.warmup = 3"
        )
    with pytest.raises(ValueError, match="has no public weights 'augreg'"):
        command_lines.check_call(
            "tools/fewshot.py", "--model=vit_b16", "--weights=augreg", "--out_dir=x"
        )
    with pytest.raises(AssertionError):
        command_lines.check(["make", "quickstat"])
    with pytest.raises(AssertionError):
        command_lines.check(["pip", "install", "-e", ".[lite]"])
    with pytest.raises(SystemExit):
        command_lines.check_call("tools/quickstart.py", "--output=x")
