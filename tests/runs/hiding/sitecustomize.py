"""Run by a Python whose path has it: a directory is not seen, as if it were on another disk."""

import os

hidden = os.environ.get("GRAPHORCH_TEST_HIDE")
if hidden:
    from graphorch_ray.checkpoint.files import LocalFiles

    begin = LocalFiles.__init__

    def elsewhere(self, root):
        begin(self, root + "-elsewhere" if root == hidden else root)

    LocalFiles.__init__ = elsewhere
