"""``python -m quantwise`` is ``quantwise``."""

import sys

from quantwise.cli.main import main

sys.exit(main())
