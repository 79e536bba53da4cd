"""Computations of an HLO module that are equal, made one."""

from tensorflow.compiler.xla.service import hlo_pb2


def share_computations(hlo: bytes) -> bytes:
    """Lets a module hold each of its computations once.

    TensorFlow gives every reduction a computation of its own, thousands of additions of two numbers
    in a large model's step; the conversion to StableHLO takes megabytes for each.

    Args:
      hlo: serialized `HloModuleProto`.

    Returns:
      The same program, serialized.
    """
    module = hlo_pb2.HloModuleProto.FromString(hlo)
    first: dict[bytes, int] = {}  # by content, the one that is kept
    instead: dict[int, int] = {}
    kept = []
    for computation in module.computations:  # callees come before their callers
        for instruction in computation.instructions:
            called = [instead.get(number, number) for number in instruction.called_computation_ids]
            instruction.called_computation_ids[:] = called
        if computation.id != module.entry_computation_id:
            one = first.setdefault(_content(computation), computation.id)
            if one != computation.id:
                instead[computation.id] = one
                continue
        kept.append(computation.SerializeToString())
    del module.computations[:]
    for computation in kept:
        module.computations.add().ParseFromString(computation)
    return module.SerializeToString()


def _content(computation: hlo_pb2.HloComputationProto) -> bytes:
    """What a computation does, without the names and numbers that are its own in the module."""
    content = hlo_pb2.HloComputationProto()
    content.CopyFrom(computation)
    place = {instruction.id: n for n, instruction in enumerate(content.instructions)}
    content.id, content.name, content.root_id = 0, "", place[computation.root_id]
    del content.program_shape.parameter_names[:]
    for number, instruction in enumerate(content.instructions):
        instruction.id, instruction.name = number, ""
        instruction.ClearField("metadata")
        instruction.operand_ids[:] = [place[operand] for operand in instruction.operand_ids]
        controls = instruction.control_predecessor_ids
        controls[:] = [place[control] for control in controls]
    return content.SerializeToString(deterministic=True)
