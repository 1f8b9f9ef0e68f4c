"""`python -m daemon.workers FD`: a worker, as the parent starts it; nobody else can."""

import sys

from daemon.workers.process import main

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
