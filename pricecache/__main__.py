"""`python -m pricecache` is the `pricecache` command."""

import sys

from pricecache.cli import main

if __name__ == "__main__":
    sys.exit(main())
