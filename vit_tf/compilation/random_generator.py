"""Random numbers of an HLO module, drawn as a TPU draws them."""

from tensorflow.compiler.xla import xla_data_pb2
from tensorflow.compiler.xla.service import hlo_pb2

_KEY_AND_COUNTER = 2  # 64-bit words of state that a TPU's own generator takes; Philox has 3


def use_own_generator(hlo: bytes) -> bytes:
    """Lets the compiler use the generator of its hardware.

    TensorFlow names Philox where it lowers for a CPU or a GPU, and for a TPU leaves the choice to
    its compiler (`DefaultRngAlgForDeviceType` in `tf2xla`). Philox, spelled out in integers, costs
    a TPU 84 bytes of traffic a number, and its compiler minutes. Draws that ask for Philox by name
    are not told apart; there are few in a step.

    Args:
      hlo: serialized `HloModuleProto`, lowered for a CPU.

    Returns:
      The program with other random numbers, serialized. Where a generator's new state is used,
      it stays Philox; that of TensorFlow's own draws never is.
    """
    module = hlo_pb2.HloModuleProto.FromString(hlo)
    for computation in module.computations:
        _change(computation)
    return module.SerializeToString()


def _change(computation: hlo_pb2.HloComputationProto) -> None:
    live = _live(computation)
    shapes = {instruction.id: instruction.shape for instruction in computation.instructions}
    free = max(shapes) + 1
    own, dropped = set(), set()  # generators that are a TPU's own; what follows from their states
    kept = []
    for instruction in computation.instructions:
        operands = set(instruction.operand_ids)
        is_state = instruction.opcode == "get-tuple-element" and instruction.tuple_index == 0
        if operands & dropped or (is_state and operands & own):
            dropped.add(instruction.id)
            continue
        if _is_philox(instruction) and not _state_of(instruction, computation) & live:
            own.add(instruction.id)
            start = _start_of_state(instruction, shapes[instruction.operand_ids[0]], free)
            free += 1
            kept.append(start.SerializeToString())
            instruction.rng_algorithm = xla_data_pb2.RNG_DEFAULT
            instruction.operand_ids[:] = [start.id]
            instruction.shape.tuple_shapes[0].CopyFrom(start.shape)
        kept.append(instruction.SerializeToString())
    del computation.instructions[:]
    for instruction in kept:
        computation.instructions.add().ParseFromString(instruction)


def _live(computation: hlo_pb2.HloComputationProto) -> set[int]:
    """What the result depends on."""
    live = {computation.root_id}
    for instruction in reversed(computation.instructions):  # operands come before their users
        if instruction.id in live:
            live.update(instruction.operand_ids)
    return live


def _is_philox(instruction: hlo_pb2.HloInstructionProto) -> bool:
    of_philox = instruction.rng_algorithm == xla_data_pb2.RNG_PHILOX
    return instruction.opcode == "rng-bit-generator" and of_philox


def _state_of(
    generator: hlo_pb2.HloInstructionProto, computation: hlo_pb2.HloComputationProto
) -> set[int]:
    """Where a generator's new state is taken from its result."""
    users = [i for i in computation.instructions if generator.id in i.operand_ids]
    return {user.id for user in users if user.tuple_index != 1}


def _start_of_state(
    generator: hlo_pb2.HloInstructionProto, shape: xla_data_pb2.ShapeProto, number: int
) -> hlo_pb2.HloInstructionProto:
    """Takes the words of the generator's state that a TPU's own takes."""
    start = hlo_pb2.HloInstructionProto(
        name=f"{generator.name}.state", opcode="slice", shape=shape, id=number
    )
    start.shape.dimensions[:] = [_KEY_AND_COUNTER]
    start.operand_ids[:] = generator.operand_ids
    start.slice_dimensions.add(start=0, limit=_KEY_AND_COUNTER, stride=1)
    return start
