"""`python -m licht` is the command `licht`."""

from licht.cli.main import main

if __name__ == "__main__":
    main()
