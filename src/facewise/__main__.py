"""Where the command begins: a module so small that Ctrl-C finds somebody to catch it.

The command line imports all commands; whoever interrupts that gets an exit code, no traceback.
"""

import sys


def main() -> None:
    """As ``facewise.cli.main``."""
    try:
        from facewise.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)  # Exit.INTERRUPTED, which may not be there yet


if __name__ == "__main__":  # processes that are spawned import this module again
    main()
