"""The core: routing, merging, migrating, presence and sweeping. No framework, no vendor, no wall clock."""
