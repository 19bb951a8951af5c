"""Why a node is alone, and what to do about it: `gossipsess doctor`."""
