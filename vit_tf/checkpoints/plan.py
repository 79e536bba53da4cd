"""What is to become of every weight of a model and every key of a file."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from vit_tf.checkpoints.names.naming import Arrays, Naming, Tensor
from vit_tf.checkpoints.names.own import PREFIX_TOKENS, REGISTERS, weights_by_path
from vit_tf.checkpoints.positions import (
    Grid,
    infer_layout,
    resize_pairs,
    resize_patch_kernel,
    resize_position_embedding,
)
from vit_tf.checkpoints.report import LoadReport
from vit_tf.layers.resampling import resample, resize_matrix


class LoadPlan:
    """Decides by names and shapes alone what to load, and loads it when told to.

    Args:
        model: A model of `create_model`.
        naming: The naming that the file follows.
        arrays: The file's arrays below `root`.
        root: What stands before all these names in the file.
        report: Takes the account of every weight and key.
    """

    def __init__(
        self, model: keras.Model, naming: Naming, arrays: Arrays, root: str, report: LoadReport
    ):
        self.model = model
        self.naming = naming
        self.report = report
        self.variables = weights_by_path(model)
        self.arrays: Arrays = {}
        # Current spelling of a key -> the file's own, with its root.
        self.origins: dict[str, str] = {}
        for key, array in arrays.items():
            self._add(root + key, naming.tidy({key: array}))
        self._assignments: list[_Assignment] = []
        # Class token or the like -> the rows of the file's position table that it absorbs.
        self._absorbed: dict[str, tuple[Tensor, slice]] = {}

    def _add(self, origin, found):
        for key, array in found.items():
            if key in self.arrays:
                self.report.unexpected.append(f"{origin} (the same as {self.origins[key]})")
            else:
                self.arrays[key], self.origins[key] = array, origin

    def decide(
        self, head: str | Sequence[int], position_method: str, position_grid: Grid | None
    ) -> None:
        """Fills the report; no data are read. The arguments are those of `load_checkpoint`."""
        used = set()
        unnamed = dict.fromkeys(self.variables)
        for tensor in self.naming.tensors(self.model):
            unnamed.pop(tensor.weight)
            if self._is_absent(tensor, isinstance(head, str) and head != "keep"):
                continue
            used.update(tensor.keys)
            if tensor.role == "head":
                self._decide_head(tensor, head)
            elif tensor.role == "positions":
                self._decide_positions(tensor, position_method, position_grid)
            elif tensor.role == "patch_kernel":
                self._decide_patch_kernel(tensor)
            elif tensor.role == "grid":
                self._decide_grid(tensor, position_method)
            elif tensor.role == "grid_pairs":
                self._decide_grid_pairs(tensor, position_method)
            elif self._fits(tensor):
                self._take(tensor, self.variables[tensor.weight].shape)
        for weight in unnamed:
            self.report.missing[weight] = (f"name for it among those of {self.naming.name}",)
        self._account_for_unused(used)
        for setting, value in self.naming.expects.items():
            ours = getattr(self.model, setting)
            if ours != value:
                self.report.notes.append(
                    f"models with {self.naming.name} names compute with {setting}={value!r}, this "
                    f"one with {ours!r}"
                )

    def carry_out(self) -> None:
        """Reads all data, then sets the weights."""
        values = {}
        for assignment in self._assignments:
            value = self._read(assignment.tensor, assignment.shape)
            values[assignment.tensor.weight] = assignment.adapt(value)
        for weight, (table, rows) in self._absorbed.items():
            if weight in values:
                positions = self._read(table, (1, -1, self.model.width))
                values[weight] = values[weight] + positions[:, rows]
        for weight, value in values.items():
            self.variables[weight].assign(value)

    def _is_absent(self, tensor, head_may_be_absent):
        absent = tuple(key for key in tensor.keys if key not in self.arrays)
        if not absent:
            return False
        has_head = any(key.startswith(self.naming.heads) for key in self.arrays)
        if tensor.role == "head" and head_may_be_absent and not has_head:
            self.report.reset[tensor.weight] = "the file has no head"
        else:
            self.report.missing[tensor.weight] = absent
        return True

    def _account_for_unused(self, used):
        report = self.report
        origins_in_use = {self.origins[key] for key in used}
        for key in self.arrays:
            if key in used:
                continue
            origin = self.origins[key]
            if origin in origins_in_use:  # the last of the stacked blocks of an array
                origin = f"{origin} (of it {key})"
            if self.naming.ignored(key):
                report.skipped[origin] = "a counter, not a weight"
            elif not self.model.num_classes and key.startswith(self.naming.heads):
                report.skipped[origin] = "the model has no head"
            elif origin not in report.unexpected:
                report.unexpected.append(origin)

    def _read(self, tensor, shape):
        parts = (np.asarray(self.arrays[key].read()) for key in tensor.keys)
        return tensor.to_model([part.astype(np.float32) for part in parts], shape)

    def _take(self, tensor, shape, adapt=lambda value: value):
        self._assignments.append(_Assignment(tensor, tuple(shape), adapt))
        self.report.loaded[tensor.weight] = tuple(self.origins[key] for key in tensor.keys)

    def _mismatch(self, tensor, wanted):
        given = " and ".join(f"{self.origins[key]} {self.arrays[key].shape}" for key in tensor.keys)
        self.report.mismatched[tensor.weight] = f"{given} in the file, wanted {wanted}"

    def _fits(self, tensor):
        """Tells whether all parts have their shape."""
        if all(_agree(self.arrays[key].shape, tensor.shape, tensor) for key in tensor.keys):
            return True
        self._mismatch(tensor, tensor.shape)
        return False

    def _decide_head(self, tensor, head):
        (key,) = tensor.keys
        classes = self.model.num_classes
        given = self.arrays[key].shape
        class_axis = 0 if tensor.layout in ("linear", "conv") else -1
        stored = given[class_axis] if given else 0
        of_file = list(tensor.shape)
        of_file[class_axis] = stored
        if not _agree(given, tuple(of_file), tensor):
            self._mismatch(tensor, tensor.shape)
        elif isinstance(head, str) and head == "reset":
            self.report.reset[tensor.weight] = f"as asked for; {self.origins[key]} is left out"
        elif not isinstance(head, str):
            self._take_classes(tensor, np.asarray(head), stored)
        elif stored == classes:
            self._take(tensor, self.variables[tensor.weight].shape)
        elif head == "keep":
            self._mismatch(tensor, f"{classes} classes, as head='keep' asks for")
        else:
            why = f"{self.origins[key]} has {stored} classes, {classes} are wanted"
            self.report.reset[tensor.weight] = why

    def _take_classes(self, tensor, chosen, stored):
        if chosen.min() < 0 or chosen.max() >= stored:
            raise ValueError(
                f"head names the classes {chosen.min()} to {chosen.max()} of the file, whose "
                f"{self.origins[tensor.keys[0]]} has {stored}, counted from 0."
            )
        shape = (*self.variables[tensor.weight].shape[:-1], stored)
        self._take(tensor, shape, lambda value: value[..., chosen])

    def _decide_patch_kernel(self, tensor):
        (key,) = tensor.keys
        variable = self.variables[tensor.weight]
        given = tensor.file_to_model_shape(self.arrays[key].shape)
        if len(given) != 4 or given[2:] != tuple(variable.shape[2:]):
            self._mismatch(tensor, tensor.shape)
        elif given[:2] == tuple(variable.shape[:2]):
            self._take(tensor, given)
        else:
            new = tuple(variable.shape[:2])
            self._take(tensor, given, lambda value: resize_patch_kernel(value, new))
            self.report.resized[tensor.weight] = f"{_by(given)} -> {_by(new)} pixels, PI-resize"

    def _decide_grid(self, tensor, method):
        """Resizes a table over a grid of places, which a file may hold flattened."""
        (key,) = tensor.keys
        new = tuple(self.variables[tensor.weight].shape)
        given = tensor.file_to_model_shape(self.arrays[key].shape)
        if len(given) == len(new):
            grid, rest = given[:2], given[2:]
        else:
            rest = given[1:]
            grid = self._grid_of(given[0], new[:2]) if given else None
        if grid is None or rest != new[2:]:
            self._mismatch(tensor, tensor.shape)
        elif grid == new[:2]:
            self._take(tensor, new)
        else:
            matrices = [resize_matrix(o, n, method) for o, n in zip(grid, new[:2], strict=True)]
            self._take(tensor, (*grid, *rest), lambda table: resample(table, *matrices))
            self.report.resized[tensor.weight] = f"{_by(grid)} -> {_by(new)} places, {method}"

    def _decide_grid_pairs(self, tensor, method):
        """Resizes a table over pairs of places of two grids, which a file may hold flattened."""
        (key,) = tensor.keys
        new = tuple(self.variables[tensor.weight].shape)
        old = self._pairs_of(self.arrays[key].shape, new)
        if old is None or old[0] != new[0]:
            self._mismatch(tensor, tensor.shape)
        elif old == new:
            self._take(tensor, new)
        else:
            self._take(tensor, old, lambda table: resize_pairs(table, new[1:3], new[3:], method))
            change = f"{_by(old[1:3])} -> {_by(new[1:3])} queries, {_by(old[3:])} -> {_by(new[3:])}"
            self.report.resized[tensor.weight] = f"{change} keys, {method}"

    def _pairs_of(self, given, new):
        """The shape with both grids apart, if the file has a table of two grids."""
        if len(given) != 3:
            return tuple(given) if len(given) == len(new) else None
        heads, queries, keys = given
        query_grid = self._grid_of(queries, new[1:3])
        if query_grid == new[1:3] and keys == math.prod(new[3:]):
            return (heads, *new[1:])
        key_grid = None if query_grid is None else self._grid_of(keys, query_grid)
        return None if key_grid is None else (heads, *query_grid, *key_grid)

    @functools.cached_property
    def _same_grids(self):
        """Whether every table over grids has as many numbers in the file as in the model."""
        sizes = (
            (math.prod(self.arrays[key].shape), math.prod(self.variables[tensor.weight].shape))
            for tensor in self.naming.tensors(self.model)
            if tensor.role in ("grid", "grid_pairs")
            for key in tensor.keys
            if key in self.arrays
        )
        return all(theirs == ours for theirs, ours in sizes)

    def _grid_of(self, places, model_grid):
        """The model's own grid if all are, or else a square one, or one of its proportions."""
        side = math.isqrt(places)
        if side * side == places and not self._same_grids:
            return (side, side)
        try:
            return infer_layout(places, [0], model_grid)[1]
        except ValueError:
            return None

    def _decide_positions(self, tensor, method, position_grid):
        (key,) = tensor.keys
        model, shape = self.model, self.arrays[key].shape
        current = self.variables[tensor.weight]
        if not shape or shape[-1] != model.width:
            return self._mismatch(tensor, tuple(current.shape))
        owners = self._owners_of_rows()
        new_grid = model.position_grid
        rows = math.prod(shape) // model.width
        try:
            slots, grid = infer_layout(rows, self._readings(owners), new_grid, position_grid)
        except ValueError as error:
            self.report.mismatched[tensor.weight] = f"{self.origins[key]}: {error}"
            return None
        theirs = {weight: part for weight, part in owners.items() if part.stop <= slots}
        ours = [name for name in PREFIX_TOKENS if name in self.variables][: model.position_slots]

        def adapt(table):
            resized = resize_position_embedding(table, grid, new_grid, method, slots)
            before = _rows_before_patches(resized, theirs, ours, np.asarray(current) * bool(slots))
            return np.concatenate([*before, resized[:, slots:]], axis=1)

        self._take(tensor, (1, rows, model.width), adapt)
        self._absorbed = {w: (tensor, part) for w, part in theirs.items() if w not in ours}
        if grid != new_grid:
            change = f"{_by(grid)} -> {_by(new_grid)} positions, {method}"
            self.report.resized[tensor.weight] = change
        elif (
            grid[0] != grid[1]
            and position_grid is None
            and math.isqrt(rows - slots) ** 2 == (rows - slots)
        ):
            self.report.notes.append(
                f"{self.origins[key]} is taken to be of {_by(grid)} patches as the model is; if it "
                "is of a square grid, say so with position_grid"
            )
        return None

    def _owners_of_rows(self) -> Mapping[str, slice]:
        """Tokens before the patches -> the rows that a table with rows for them has for each."""
        keys = zip(PREFIX_TOKENS, self.naming.prefix_tokens, strict=False)
        tokens = [weight for weight, key in keys if key in self.arrays]
        owners = {weight: slice(row, row + 1) for row, weight in enumerate(tokens)}
        if self.naming.registers in self.arrays:
            count = self.arrays[self.naming.registers].shape[1]
            owners[REGISTERS] = slice(len(tokens), len(tokens) + count)
        return owners

    def _readings(self, owners) -> list[int]:
        """How many rows may stand before those of the patches, the likeliest number first.

        Where the keys do not tell, a file is likelier to be as the model is.
        """
        slots = self.naming.position_slots(self.arrays)
        if slots is not None:
            return [slots]
        tokens = sum(part.stop - part.start for w, part in owners.items() if w != REGISTERS)
        everything = max((part.stop for part in owners.values()), default=0)
        if self.model.position_slots:
            readings = [everything, tokens, 0]
        elif self.model.num_prefix_tokens:
            readings = [0, tokens, everything]
        else:
            readings = [tokens, 0, everything]
        return list(dict.fromkeys(readings))


@dataclasses.dataclass(frozen=True)
class _Assignment:
    """A weight, the shape in which the file has it, and what makes the model's out of it."""

    tensor: Tensor
    shape: tuple[int, ...]
    adapt: Callable[[np.ndarray], np.ndarray]


def _rows_before_patches(table, theirs, ours, current):
    """A table's rows for our tokens; one that the file lacks keeps that of `current`."""
    return [
        table[:, theirs[token]] if token in theirs else current[:, row : row + 1]
        for row, token in enumerate(ours)
    ]


def _agree(given, wanted, tensor):
    """Tells whether shapes agree; some files have axes of length one in front."""
    if tensor.layout != "plain":
        return tuple(given) == tuple(wanted)
    return _without_leading_ones(given) == _without_leading_ones(wanted)


def _without_leading_ones(shape):
    first = next((axis for axis, size in enumerate(shape) if size != 1), len(shape))
    return tuple(shape[first:])


def _by(size):
    return f"{size[0]} x {size[1]}"
