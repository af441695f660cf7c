"""The receipt of one migration (S6): `document` says what stands in it, `verification` judges it offline."""
