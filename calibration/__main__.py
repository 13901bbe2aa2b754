"""``python -m calibration`` is ``python calibration/run.py``."""

import sys

from calibration.run import main

sys.exit(main())
