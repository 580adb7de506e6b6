"""Graph to graph: each pass is one function, each graph is checked after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..graph import Graph
from .affine import fold_affine
from .broadcasts import drop_broadcasts
from .canonical import canonicalize, merge_moves
from .complex_numbers import split_complex
from .composites import raise_composites
from .constants import fold_constants
from .dead_code import remove_dead_code
from .edges import raise_edge_pads
from .gathers import raise_takes
from .layout import channels_first as channels_first
from .linear import raise_linear
from .norms import norm_in_place, raise_means
from .numbers import raise_numbers
from .ranks import fit_rank
from .resampling import raise_resizes
from .sampling import raise_samples
from .scalars import scalars_to_vectors
from .scatters import raise_scatters
from .shuffles import raise_shuffles
from .strides import plain_strides
from .types import fit_types
from .windows import raise_pools, raise_upsampling
from .writes import raise_writes

Pass = Callable[[Graph], Graph]

# In order. A pass may rely on the ones above it. All of them speak MLX's layout; the last
# step, ``channels_first``, is called by itself because it needs to know the borders.
PASSES: tuple[Pass, ...] = (
    drop_broadcasts,
    canonicalize,
    raise_linear,  # before constants swallow the transposes that name a weight
    fold_constants,
    plain_strides,
    raise_edge_pads,  # before the writes that they are made of
    raise_writes,
    raise_scatters,
    raise_numbers,
    split_complex,
    fold_constants,  # and with it dead code: a dead reader blocks a match
    raise_pools,
    raise_upsampling,
    raise_takes,
    raise_samples,
    raise_resizes,  # whose gathers are Takes by now
    raise_composites,
    raise_means,
    norm_in_place,
    scalars_to_vectors,
    remove_dead_code,  # what was raised
    raise_shuffles,
    fit_types,
    fit_rank,  # after all that look for MLX's own shapes
    merge_moves,  # after all that know MLX's own reshapes
    remove_dead_code,
    fold_affine,
    merge_moves,
    remove_dead_code,
)


def run_passes(graph: Graph, passes: Iterable[Pass] = PASSES) -> Graph:
    """Apply ``passes`` in order; a broken graph is named by the pass that broke it."""
    for run in passes:
        try:
            graph = run(graph).check()
        except ValueError as error:
            raise ValueError(f"after {run.__name__}: {error}") from error
    return graph
