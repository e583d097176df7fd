"""Sampling: the protocol (`base`), the decode loop (`engine`), the forwards it drives (`bodies`), shards (`units`)."""
