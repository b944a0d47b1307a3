"""Whole configurations, named for what they make."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from licht.recipes.nano import (
    nano_autoencoder,
    nano_base,
    nano_critic,
    nano_dev,
    nano_judge,
    nano_klein,
    nano_polish,
    nano_smoke,
)
from licht.training.config import Recipe

RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            nano_smoke,
            nano_autoencoder,
            nano_base,
            nano_dev,
            nano_klein,
            nano_critic,
            nano_polish,
            nano_judge,
        )
    }
)
"""Recipes by name."""
