"""How the suite is shared out among the workers of `scripts/test`: file by file, and from both ends."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController


class FromBothEnds(LoadFileScheduling):
    """The first worker takes files in the order of their names, the others begin with the last.

    So what runs real daemons, kills them and drives a browser (acceptance, browser, faults) goes on in one worker, and
    beside it what only computes (unit): the former waits much, the latter never, and two floods of processes never
    meet. They come together in the files of integration, the longest of which takes a twentieth of the whole.
    """

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node is not self.nodes[0]:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)
