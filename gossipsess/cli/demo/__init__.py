"""`gossipsess demo`: three replicas of a small shop, a balancer, and somebody who tells what happens."""
