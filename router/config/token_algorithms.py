"""The signature algorithms of tokens that ``auth.algorithms`` may name."""

from __future__ import annotations

SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Algorithms whose public key cannot sign: HS256 with a published key, or none, would let anyone in."""
