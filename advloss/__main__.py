"""``python -m advloss``."""

import sys

from advloss._cli import main

sys.exit(main())
