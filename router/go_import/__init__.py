"""Moves the mail that go-routing-service left in Firestore and Redis: docs/from-go-routing-service.md."""
