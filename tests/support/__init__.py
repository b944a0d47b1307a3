"""Small models, pictures and files that many tests are made of."""
