"""The collector through which a forward pass hands out named intermediate tensors."""

from collections.abc import Iterable


class Intermediates:
    """Keeps those named tensors of one forward pass that were asked for.

    Layers call `record` with short names; `scope` puts the name of the enclosing part in front, so
    that an attention layer says `attn_weights` and the model's user reads `block03/attn_weights`.
    Names that were not asked for are dropped at once and hold no memory.

    Args:
        names: Full names of the tensors to keep.
    """

    def __init__(self, names: Iterable[str]):
        self._wanted = frozenset(names)
        self._prefix = ""
        self.tensors = {}

    def __repr__(self):
        return f"Intermediates({sorted(self._wanted)})"

    def scope(self, name: str) -> "Intermediates":
        """Returns a view on the same collection that puts `name/` before every name."""
        view = Intermediates(self._wanted)
        view._prefix = f"{self._prefix}{name}/"
        view.tensors = self.tensors
        return view

    def wants(self, name: str) -> bool:
        """Tells whether `name` was asked for, for tensors that cost something to compute."""
        return self._prefix + name in self._wanted

    def record(self, name: str, tensor) -> None:
        """Keeps `tensor` under `name` if it was asked for."""
        if self.wants(name):
            self.tensors[self._prefix + name] = tensor


# What layers hand their intermediates to when nobody asked for any.
NOWHERE = Intermediates(())
