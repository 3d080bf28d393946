"""Entry point of the command, kept tiny so that Ctrl-C is caught even while it imports.

The command line imports all commands; an interrupt then gives an exit code, not a traceback.
"""

import sys


def main() -> None:
    """Run ``facewise.cli.main``."""
    try:
        from facewise.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)  # Exit.INTERRUPTED, which may not be imported yet


if __name__ == "__main__":  # spawned processes import this module again
    main()
