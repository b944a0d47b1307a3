"""How noise becomes a latent: schedules, solvers, guidance. Pure functions over a callable velocity."""
