"""From a model and an image of any size to one label image.

`run` tells the story, `plan` decides, `phases` acts through `tasks`. Beside them lie the geometry
(`blocks`, `field`, `tiling`), what blocks have in common (`slabs`, `stitch`, `relabel`), and what a
run has done (`ledger`, `progress`, `bookkeeping`). Rooms of their own have

- `scale`: at which size the network sees the image,
- `network`: the network made ready,
- `cluster`: from embeddings to labels,
- `workers`: what tasks run on,
- `output`: the label that is written,
- `review`: what the run says of its own work.
"""

from spoco_zoo.ngff import open_labels
from spoco_zoo.segment.glance import embed_part
from spoco_zoo.segment.guess import Guess, guess_time
from spoco_zoo.segment.outcome import Event, Failure, SegmentResult
from spoco_zoo.segment.plan import Plan, make_plan
from spoco_zoo.segment.run import dry_run, segment
from spoco_zoo.segment.standing import foretell
from spoco_zoo.segment.workers.machines import check_machines, remark_memory
from spoco_zoo.verbs import make_verb

__all__ = [
    "Event",
    "Failure",
    "Guess",
    "Plan",
    "SegmentResult",
    "check_machines",
    "dry_run",
    "embed_part",
    "foretell",
    "guess_time",
    "make_plan",
    "open_labels",
    "remark_memory",
    "segment",
]

make_verb(__name__)
