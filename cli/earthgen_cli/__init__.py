"""The command line of earthgen: `earthgen --help`, and docs/cli.md."""
