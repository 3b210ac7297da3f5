"""`python -m iosim` is the iosim command, and so is the script that an installation makes."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; Ctrl-C while its modules are still being imported ends it like any later one."""
    try:
        from iosim.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
