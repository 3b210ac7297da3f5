"""A door for a checkout: `python cli.py ...` is the iosim command."""

from iosim.__main__ import main

if __name__ == "__main__":
    main()
