"""One module per command; `earthgen_cli.main` lists them."""
