"""Scenarios of the production set-up: Redis, Firestore and Pub/Sub, and a process for each service."""
