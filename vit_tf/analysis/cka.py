"""Centred kernel alignment: how alike two representations of the same examples are.

Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", with a linear
kernel. Two sets of features are alike where they find the same examples similar, however many
features there are: rotating them or scaling them as a whole changes nothing.

Over more examples than fit into memory, Nguyen et al. 2021, "Do Wide and Deep Networks Learn the
Same Things?", section 3.1, average an estimate of the Hilbert-Schmidt independence criterion (HSIC)
that is unbiased in each minibatch (Song et al. 2012, "Feature Selection via Dependence
Maximization", equation 5).

Everything is computed in float64, by way of Gram matrices [examples, examples].
"""

from collections.abc import Iterable

import numpy as np

_FEWEST = 4  # examples: of fewer there is no unbiased estimate
_CHUNK = 1 << 16  # features that are in float64 at a time


def linear_cka(first: np.ndarray, second: np.ndarray) -> float:
    """CKA of all examples at once.

    Args:
      first: features [examples, ...]; what is behind the first axis is one vector.
      second: other features of the same examples.

    Returns:
      0 (unrelated) to 1 (the same up to rotation and scale); NaN where features are the same for
      every example. Of few examples and many features it is too high; `MinibatchCKA` is not.

    Raises:
      ValueError: the numbers of examples differ, or there are fewer than two.
    """
    first, second = (_centred(_gram(features, 2)) for features in (first, second))
    _check_same_examples(first, second)
    return float(_aligned(np.sum(first * second), np.sum(first**2), np.sum(second**2)))


def unbiased_hsic(first: np.ndarray, second: np.ndarray) -> float:
    """The unbiased estimate of the Hilbert-Schmidt independence criterion, HSIC_1.

    Args:
      first: features [examples, ...].
      second: other features of the same examples.

    Returns:
      The estimate; around 0, also below, for features that have nothing to do with each other.

    Raises:
      ValueError: the numbers of examples differ, or there are fewer than four.
    """
    first, second = _u_centred_grams([first]), _u_centred_grams([second])
    _check_same_examples(first, second)
    return float(_hsic(first, second)[0, 0])


class MinibatchCKA:
    """CKA between all of several representations and all of others, a minibatch at a time.

    Memory holds one Gram matrix [batch, batch] a representation, and three sums.
    """

    def __init__(self):
        self._examples = 0
        self._across = self._first = self._second = 0.0

    def update(
        self, first: Iterable[np.ndarray], second: Iterable[np.ndarray] | None = None
    ) -> None:
        """Adds a minibatch, which weighs as many examples as it has.

        Args:
          first: of each representation the features [batch, ...], in the same order every time;
            an iterator need not hold more than one of them.
          second: of each of the representations on the other side; None for those of `first`.

        Raises:
          ValueError: there are fewer than four examples, not as many of each representation, or no
            representations.
        """
        first = _u_centred_grams(first)
        second = first if second is None else _u_centred_grams(second)
        _check_same_examples(first, second)
        examples = first.shape[-1]
        self._examples += examples
        self._across = self._across + examples * _hsic(first, second)
        self._first = self._first + examples * _own_hsic(first)
        self._second = self._second + examples * _own_hsic(second)

    def result(self) -> np.ndarray:
        """CKA float64 [first, second] of the minibatches so far.

        1 is the same up to rotation and scale. Unrelated representations are around 0, also below;
        NaN where features never differed between the examples of a minibatch.

        Raises:
          ValueError: there was no minibatch.
        """
        if not self._examples:
            raise ValueError("no minibatch was given, so there is no CKA; call update first")
        return _aligned(self._across, self._first[:, None], self._second[None])


def _gram(features: np.ndarray, fewest: int) -> np.ndarray:
    """Products of all pairs of examples, [examples, examples], after a shift.

    The first example becomes the origin. Neither criterion depends on the origin; with this one
    features that never change are exactly zero, and a large mean costs no digits.
    """
    features = np.asarray(features)
    if features.ndim < 2 or len(features) < fewest:
        raise ValueError(
            f"features are [examples, ...] with {fewest} examples or more; given {features.shape}. "
            "Of a last minibatch that is too small, drop the examples or spread them over others."
        )
    features = features.reshape(len(features), -1)
    products = np.zeros([len(features)] * 2)
    for start in range(0, features.shape[1], _CHUNK):
        chunk = features[:, start : start + _CHUNK].astype(np.float64)
        chunk -= chunk[:1].copy()
        products += chunk @ chunk.T
    return products


def _centred(gram: np.ndarray) -> np.ndarray:
    """The Gram matrix of the features less their means."""
    rows = gram.mean(axis=0)
    return gram - rows - rows[:, None] + rows.mean()


def _u_centred(gram: np.ndarray) -> np.ndarray:
    """The Gram matrix centred without its diagonal.

    The mean product of two such matrices is Song et al.'s estimate: Székely and Rizzo 2014,
    "Partial Distance Correlation with Methods for Dissimilarities", section 3.
    """
    examples = len(gram)
    gram = gram.copy()
    np.fill_diagonal(gram, 0)
    rows = gram.sum(axis=0) / (examples - 2)
    gram += rows.sum() / (examples - 1) - rows - rows[:, None]
    np.fill_diagonal(gram, 0)
    return gram


def _u_centred_grams(representations: Iterable[np.ndarray]) -> np.ndarray:
    """U-centred Gram matrices [representations, examples, examples]."""
    grams = [_u_centred(_gram(features, _FEWEST)) for features in representations]
    if not grams:
        raise ValueError("no representation was given; CKA compares one at least with another")
    for gram in grams:
        _check_same_examples(grams[0], gram)
    return np.stack(grams)


def _hsic(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """HSIC_1 of all pairs of U-centred Gram matrices, [first, second]."""
    examples = first.shape[-1]
    return np.tensordot(first, second, axes=([1, 2], [1, 2])) / (examples * (examples - 3))


def _own_hsic(grams: np.ndarray) -> np.ndarray:
    """HSIC_1 of each U-centred Gram matrix with itself."""
    examples = grams.shape[-1]
    return np.einsum("kij,kij->k", grams, grams) / (examples * (examples - 3))


def _aligned(across: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The criterion of pairs, scaled by that of each with itself; NaN where that is none."""
    scale = np.sqrt(first * second)
    return np.where(scale > 0, across / np.where(scale > 0, scale, 1), np.nan)


def _check_same_examples(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(
            "representations are compared on the same examples; given two of "
            f"{first.shape[-1]} and {second.shape[-1]} examples"
        )
