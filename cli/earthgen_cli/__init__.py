"""The command line of earthgen: `earthgen --help`, and docs/reference/cli.md."""
