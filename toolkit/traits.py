"""What a pass makes of a model that a later pass may undo: each pass says what it makes, and what it keeps.

`plan` follows these through the passes of every variant (ordering.py), so that an order that loses what was worked
for is refused before any work.
"""

from __future__ import annotations

from typing import Literal

# narrow: channels were cut. fresh: weights that nothing has trained yet; whatever makes "trained" ends it.
# sparse: zeros anywhere. patterned: zeros in groups or blocks. clustered: few values shared by many weights.
# quantized: the rounding of its files is set.
Trait = Literal["quantized", "fresh", "patterned", "sparse", "clustered", "narrow", "trained"]

# what a pass that says nothing is taken to keep: the network's shape and what training gave it
SHAPE: frozenset[Trait] = frozenset({"narrow", "trained"})
ZEROS: frozenset[Trait] = frozenset({"sparse", "patterned"})
