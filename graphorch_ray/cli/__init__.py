"""The command `graphorch-ray`: runs, checkpoints, pictures, reports and jobs from a shell.

Nothing of the library imports this package; docs/command-line.md describes what it does.
"""

from .app import main

__all__ = ["main"]
