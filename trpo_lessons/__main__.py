"""`python -m trpo_lessons` is `trpo-lessons`."""

import sys

from trpo_lessons.cli import main

if __name__ == "__main__":
    sys.exit(main())
