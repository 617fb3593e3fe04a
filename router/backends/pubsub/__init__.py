"""Google Pub/Sub: the ingress, dead letters and push commands, and pokes where no Redis carries them."""
