"""`gossipsess demo`: a few replicas of a small shop, a balancer, and somebody who tells what happens."""
