"""Redis, Firestore and Pub/Sub as the simulation has them: their semantics in memory, behind the real client code."""
