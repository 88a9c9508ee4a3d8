"""The command `ncsam`.

Arguments are read before torch is imported, so that help and errors appear at once.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from analysis.cli.arguments import parser

WIDTH_OF_A_PIPE = 100
"""Width of output that goes to no terminal, unless COLUMNS sets another width."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit status.

    The status is 0; 1 if runs failed; 2 if the command cannot be done as asked; 130 after Ctrl-C.
    """
    options = parser().parse_args(arguments)
    from rich.console import Console
    from rich.markup import escape

    from analysis.closed_output import ClosedOutput
    from analysis.printable import printable

    # printing must not fail because the terminal lacks a letter such as λ
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # a daemon may have closed the stream
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    output: Any = None if sys.stdout is None else ClosedOutput(sys.stdout)
    width = None if is_terminal or "COLUMNS" in os.environ else WIDTH_OF_A_PIPE
    console = Console(file=output, width=width, soft_wrap=False)
    try:
        from analysis.cli.commands import run_command
        from landscape import tune_allocator

        tune_allocator()
        return run_command(options, console)
    except (ValueError, OSError) as error:
        from analysis.plan.own_parts import line_of_own_part

        place, text = line_of_own_part(error), " ".join(str(error).split())
        text = f"{text} ({place})" if place and place not in text else text
        Console(stderr=True, soft_wrap=True).print(
            f"ncsam: error: {escape(printable(text))}", style="red", highlight=False
        )
        return 2
    except Exception as error:
        from analysis.plan.own_parts import fault_of_own_parts

        text = fault_of_own_parts(error)
        if not text:
            raise
        Console(stderr=True, soft_wrap=True).print(
            f"ncsam: error: {escape(printable(' '.join(text.split())))}", style="red", highlight=False
        )
        return 2
    except KeyboardInterrupt:
        console.print("\nstopped; what is finished is kept, and the same command goes on from there")
        return 130
