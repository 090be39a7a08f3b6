"""`completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .session import PROGRAM, CommandError, Session, common


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion(session: Session, shell: str) -> None:
    """Print the shell's completion script.

    Put `eval "$(graphorch-ray completion bash)"` into ~/.bashrc, or the like for zsh; for fish,
    write it to ~/.config/fish/completions/graphorch-ray.fish.
    """
    from .app import cli

    kind = get_completion_class(shell)
    if kind is None:  # click may lose a shell
        raise CommandError(f"click has no completion for {shell}")
    script = kind(cli, {}, PROGRAM, f"_{PROGRAM.replace('-', '_')}_COMPLETE".upper()).source()
    session.show(script, {"shell": shell, "script": script})
