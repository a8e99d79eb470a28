"""`python -m daemon.cli`: the `engine` command where its script is not on the path."""

from daemon.cli.main import main

main()
