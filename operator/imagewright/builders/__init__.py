"""Ways to turn an Order into an image. None knows another."""
