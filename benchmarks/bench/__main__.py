import sys

from spinescore.benchmarks.bench.verb import main

if __name__ == "__main__":
    sys.exit(main())
