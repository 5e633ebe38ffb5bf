"""Where new checkpoints are found: the Hub, a cluster's folders, a table."""
