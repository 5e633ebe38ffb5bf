"""``python -m shard_worker``."""

import sys

from shard_worker.cli import main

if __name__ == "__main__":  # vLLM may start helper processes that import this module again
    sys.exit(main())
