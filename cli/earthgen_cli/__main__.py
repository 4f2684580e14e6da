"""`python -m earthgen_cli` is `earthgen`."""

import sys

from earthgen_cli.main import main

sys.exit(main())
