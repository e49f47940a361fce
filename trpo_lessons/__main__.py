"""`python -m trpo_lessons` is `trpo-lessons`."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the current folder: what lies beside a run is data, not modules

from trpo_lessons.cli import main

if __name__ == "__main__":
    sys.exit(main())
