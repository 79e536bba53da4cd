r"""What a configuration costs on a TPU, told by the TPU's own compiler; no TPU is needed.

  python tools/tpu_compile.py --gin_file=gin/recipes/augreg_i1k_s16.gin --topology=v5e:4x4

compiles the training step that each device of the slice would run, the very one that training
under TPUStrategy runs: mixing, distillation, accumulation, rematerialisation, averages, the
optimizer and the sum of gradients over all devices. It prints whether it compiles and fits, memory
(arguments, temporaries, peak), FLOPs, bytes, and what these bound step time and images/s to on
v2-v6e. No data, weights or teachers need to be there, as in tools/train.py --dry_run, and a ViT-G
is compiled on a laptop. Needs: pip install -e '.[tpu]'

  --topology=v5e:2x2       generation and chips: v2:2x2 v3:4x4 v4:2x2x1 v5e:16x16 v5p:2x2x2 v6e:2x4.
                           The input's batch is divided among the slice's devices (v2 and v3 have
                           two a chip)
  --program=train          train, eval (the evaluation step), predict (the SavedModel's model); or
                           several, or all
  --batch_per_chip=128     another batch than the input's share
  --find_batch             searches for the largest batch of a device that fits
  --compare_gin_file=...   a second configuration, or --compare_gin_param='...' the same one with
                           other bindings: both side by side, with ratios

What do blocks that are computed again save, and what do they cost?

  python tools/tpu_compile.py --gin_file=gin/recipes/augreg_i1k_l16.gin --topology=v5e:8x8 \
      --gin_param="RunConfig.remat = 'blocks'" --compare_gin_param="RunConfig.remat = 'none'"

Compiling takes from half a minute (S/16) to many minutes (G/14); verdicts are kept in --cache_dir
and are there at once the next time. Figures are the compiler's own; times are bounds (rooflines)
and no predictions: chips reach their peaks on large matrix products alone.

Exit status: 0 all compiles and fits; 2 something needs more memory than there is; 1 an error, such
as an op that the compiler does not know.
An error is one line; VIT_TF_TRACEBACK=1 in the environment also shows where it was raised.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # programs are lowered here, and none runs

from absl import app, flags, logging

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "gin file; may be given several times")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "a binding that wins over the files")
_TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x2", "TPU generation and chips of the slice")
_PROGRAM = flags.DEFINE_list("program", ["train"], "train, eval, predict, or all")
_BATCH = flags.DEFINE_integer("batch_per_chip", None, "examples a chip sees", lower_bound=1)
_FIND_BATCH = flags.DEFINE_bool("find_batch", False, "search for the largest batch that fits")
_OTHER_FILE = flags.DEFINE_multi_string("compare_gin_file", [], "gin file to compare with")
_OTHER_PARAM = flags.DEFINE_multi_string("compare_gin_param", [], "binding to compare with")
_FORMAT = flags.DEFINE_enum("format", "table", ["table", "json"], "how to print")
_OUT = flags.DEFINE_string("out", None, "file for the result as JSON, in addition")
_CACHE_DIR = flags.DEFINE_string(
    "cache_dir", "~/.cache/vit_tf/tpu_compile", "folder of verdicts; empty keeps none"
)

_DOES_NOT_FIT = 2
_EXAMPLE = "e.g. python tools/tpu_compile.py --gin_file=gin/recipes/augreg_i1k_s16.gin"


def main(argv: list[str]) -> None:
    """Compiles what the flags say; an expected error is one clear line."""
    if len(argv) > 1:
        _fail(f"unknown arguments: {' '.join(argv[1:])}; {_EXAMPLE}")
    if not _GIN_FILE.value:
        _fail(f"--gin_file says what to compile and is missing; {_EXAMPLE}")
    logging.set_verbosity(logging.ERROR)
    from vit_tf.training import configuration

    try:
        results = _compile_all()
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        _fail(f"{configuration.readable(error)}\n(VIT_TF_TRACEBACK=1 shows where it was raised)")
    if any(result.compiled.failure and not result.compiled.too_large for result in results):
        sys.exit(1)
    sys.exit(0 if all(result.compiled.fits for result in results) else _DOES_NOT_FIT)


def _compile_all() -> list:
    """Compiles, prints and writes; returns what was measured."""
    import vit_tf.training.run  # noqa: F401  makes the names of its arguments known to gin
    from vit_tf.compilation import parse_topology
    from vit_tf.compilation.tpu_compiler import compiler_version
    from vit_tf.training.tpu_programs import PROGRAMS
    from vit_tf.training.tpu_report import comparison, report

    compiler_version()  # raises where there is none, before minutes are spent
    topology = parse_topology(_TOPOLOGY.value)
    kinds = list(PROGRAMS) if _PROGRAM.value == ["all"] else _PROGRAM.value
    configurations = [(_GIN_FILE.value, _GIN_PARAM.value)]
    if _OTHER_FILE.value or _OTHER_PARAM.value:
        # The same file with other bindings is the first one with those in addition.
        files = _OTHER_FILE.value or _GIN_FILE.value
        before = [] if _OTHER_FILE.value else _GIN_PARAM.value
        configurations.append((files, [*before, *_OTHER_PARAM.value]))
    by_kind = {kind: [] for kind in kinds}
    for files, bindings in configurations:
        for kind, measured in _measured(files, bindings, topology, kinds):
            by_kind[kind].append(measured)
            if _FORMAT.value == "table":
                print(f"{report(measured)}\n", flush=True)
    results = [measured for of_kind in by_kind.values() for measured in of_kind]
    if _FORMAT.value == "table":
        for kind, of_kind in by_kind.items():
            if len(of_kind) > 1:
                print(f"{kind}, the second configuration against the first")
                print(comparison(*of_kind, ("first", "second")), flush=True)
    _write(results)
    return results


def _measured(files: list[str], bindings: list[str], topology, kinds: list[str]):
    """Yields each kind of program with its verdict."""
    from vit_tf.training import configuration
    from vit_tf.training.tpu_programs import configured_programs
    from vit_tf.training.tpu_report import find_batch, measure

    configuration.parse(files, bindings)
    programs = configured_programs(topology)
    cache = _CACHE_DIR.value or None
    per_device = _BATCH.value and _share_of_chip(_BATCH.value, topology.chip)
    for kind in kinds:
        if _FIND_BATCH.value:
            found = find_batch(programs, kind, topology, cache, _say)
            smallest = programs.accumulation_steps if kind == "train" else 1
            yield kind, found or measure(programs.lower(kind, smallest), topology, cache)
        else:
            yield kind, measure(programs.lower(kind, per_device), topology, cache)


def _share_of_chip(batch: int, chip) -> int:
    share, rest = divmod(batch, chip.devices_per_chip)
    if rest or not share:
        raise ValueError(
            f"--batch_per_chip={batch}: a {chip.name} chip has {chip.devices_per_chip} devices, "
            "which must divide it"
        )
    return share


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write(results: list) -> None:
    text = json.dumps([result.as_dict() for result in results], indent=1)
    if _FORMAT.value == "json":
        print(text, flush=True)
    if _OUT.value:
        part = f"{_OUT.value}.{os.getpid()}"
        with open(part, "w") as file:
            file.write(text + "\n")
        os.replace(part, _OUT.value)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    app.run(main)
