"""The half of Nightshard that runs on GPU nodes: one shard of requests in, its answers out.

It knows the control plane only by the files of the run folder, whose JSON Schemas lie in
``shard_worker/schemas``.
"""

__version__ = "0.1.0"

CONTRACT_VERSION = 2
"""Version of the file contract; a spec of another version is refused."""
