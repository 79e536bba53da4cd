"""A training step of JAX big_vision, compiled for a TPU that need not be there.

  python benchmarks/tpu_big_vision.py --big_vision=/path/to/big_vision --variant=S/16 --batch=128

For a Python of its own: `pip install jax libtpu flax optax einops ml_collections tensorflow`, and
a checkout of https://github.com/google-research/big_vision. `benchmarks/tpu.py` calls it. The last
line printed is JSON: what XLA's TPU compiler says of the step.

The step is what big_vision's `train.py` runs on a replica, without its norms for the log: gradient
of `softmax_xent` of a ViT with float32 weights and bfloat16 products, update, new weights, with the
weights and the optimizer's state donated. With `--remat` only the blocks' inputs are kept (policy
"nothing_saveable"): "scan" is big_vision's own way, a loop over the blocks, and "unrolled" the same
blocks one after the other. XLA counts what is in a loop once, so that only the latter has the FLOPs
and the bytes of the step.
"""

import argparse
import json
import os
import sys
from importlib import metadata

# What libtpu needs to compile on a machine that has no TPU.
os.environ.update(
    TPU_SKIP_MDS_QUERY="1",
    TPU_ACCELERATOR_TYPE="v5litepod-4",
    TPU_WORKER_HOSTNAMES="localhost",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    JAX_PLATFORMS="cpu",
)
NUM_CLASSES = 1000
OPTIMIZERS = ("momentum", "adafactor")


def arguments() -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--big_vision", required=True, help="folder of the checkout")
    parser.add_argument("--variant", default="S/16", help="as big_vision writes it")
    parser.add_argument("--batch", type=int, default=128, help="images a replica")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--pool", default="tok", choices=("tok", "gap", "map"))
    parser.add_argument("--optimizer", default="momentum", choices=OPTIMIZERS)
    parser.add_argument("--remat", default="none", choices=("none", "scan", "unrolled"))
    parser.add_argument("--norms", action="store_true", help="with train.py's norms for the log")
    parser.add_argument("--topology", default="v5e:2x2")
    return parser.parse_args()


def compile_step(args: argparse.Namespace):
    """Compiles one replica's step and returns JAX's `Compiled`."""
    import big_vision.optax as bv_optax
    import jax
    import jax.numpy as jnp
    import optax
    from big_vision import utils
    from big_vision.models import vit
    from flax import linen
    from jax.experimental import topologies

    if args.remat == "unrolled":  # argument 2, `deterministic`, is not a tensor
        vit.Encoder1DBlock = linen.remat(vit.Encoder1DBlock, static_argnums=(2,))
    model = vit.Model(
        NUM_CLASSES,
        variant=args.variant,
        pool_type=args.pool,
        dtype_mm="bfloat16",
        scan=args.remat == "scan",
    )
    if args.optimizer == "momentum":
        direction = optax.trace(decay=0.9)
    else:
        direction = bv_optax.scale_by_adafactor()
    optimizer = optax.chain(direction, optax.scale(-1e-3))

    def norm(tree):
        return jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)))

    def step(state, images, labels):
        params, slots = state

        def loss_of(params):
            rngs = {"dropout": jax.random.key(0)}
            logits, _ = model.apply({"params": params}, images, train=True, rngs=rngs)
            return utils.softmax_xent(logits=logits, labels=jax.nn.one_hot(labels, NUM_CLASSES))

        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, slots = optimizer.update(gradients, slots, params)
        params = optax.apply_updates(params, updates)
        trees = (gradients, params, updates) if args.norms else ()
        return (params, slots), [loss, *map(norm, trees)]

    shape = (args.batch, args.image_size, args.image_size, 3)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    labels = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    empty = jnp.zeros((1, *shape[1:]))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), empty)["params"])
    state = params, jax.eval_shape(optimizer.init, params)
    described = topologies.get_topology_desc(platform="tpu", topology_name=args.topology)
    place = jax.sharding.SingleDeviceSharding(described.devices[0])
    jitted = jax.jit(step, donate_argnums=0, in_shardings=place, out_shardings=place)
    return jitted.lower(state, images, labels).compile()


def main() -> None:
    """Compiles, and prints the compiler's figures."""
    args = arguments()
    sys.path.insert(0, args.big_vision)
    compiled = compile_step(args)
    costs, memory = compiled.cost_analysis(), compiled.memory_analysis()
    figures = {
        "tflop": costs["flops"] / 1e12,
        "gigabytes_accessed": costs["bytes accessed"] / 1e9,
        "temporary_gigabytes": memory.temp_size_in_bytes / 1e9,
        "argument_gigabytes": memory.argument_size_in_bytes / 1e9,
        "versions": {p: metadata.version(p) for p in ("jax", "libtpu", "flax", "optax")},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
