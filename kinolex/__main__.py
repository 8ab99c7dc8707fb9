"""python -m kinolex, and the command `kinolex`."""

from __future__ import annotations

import sys


def main() -> None:
    """Read the commands and run one; an interrupt while they are read ends like any other."""
    try:
        from kinolex.cli import main as run
    except KeyboardInterrupt:
        print("kinolex: interrupted; nothing was begun", file=sys.stderr)
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
