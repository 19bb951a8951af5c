"""Web sessions replicated between app processes, peer to peer, with no server to run."""
