"""The router, simulated: real components on virtual time, where a seed chooses every interleaving and every fault."""
