"""Names that were probably meant, for messages about a name that there is not.

Every room may import this one file; it imports none.
"""

import difflib
from collections.abc import Iterable


def did_you_mean(given: object, known: Iterable[str], count: int = 3, cutoff: float = 0.6) -> str:
    """A sentence that proposes the names closest to one that is unknown.

    Args:
      given: what was given; it is compared as text, whatever its case.
      known: the names that there are.
      count: how many are proposed at most.
      cutoff: how alike a name has to be, in [0, 1] (`difflib.get_close_matches`).

    Returns:
      `" Did you mean 'a' or 'b'?"`, to be put behind a sentence; `""` if no name is alike.
    """
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(given).lower(), lowered, n=count, cutoff=cutoff)
    return f" Did you mean {' or '.join(repr(lowered[name]) for name in close)}?" if close else ""
