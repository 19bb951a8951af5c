# `python -m gossipsess`: the command line (cli/).

import sys

from gossipsess.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
