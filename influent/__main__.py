"""What `python -m influent` does: the same as the command `influent`."""

from influent.cli import main

main()
